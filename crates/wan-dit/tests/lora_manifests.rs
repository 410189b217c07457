//! Published LoRA files, as names and shapes (tests/layouts), against the published models: every tensor has its
//! place. Files are sparse: their true lengths, next to nothing on disk.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use wan_core::WeightSet;
use wan_core::testkit::repo_path;
use wan_dit::{Lora, LoraReport};

/// The tensors of `tests/layouts/{name}.json.gz`, in a sparse file; in FP8 if `narrow`.
fn open(name: &str, folder: &Path, narrow: bool) -> WeightSet {
    let packed = File::open(repo_path(&format!("tests/layouts/{name}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for (name, tensor) in manifest["tensors"].as_object().unwrap() {
        let stored = tensor[0].as_str().unwrap();
        let (dtype, size) = match stored {
            _ if narrow => ("F8_E4M3", 1),
            "BF16" => (stored, 2),
            other => panic!("{other}"),
        };
        let values: u64 = tensor[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
        let start = end;
        end += values * size;
        header.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": tensor[1], "data_offsets": [start, end] }),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let path = folder.join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    WeightSet::open(&path).unwrap()
}

const LIGHTX2V_I2V: &str = "lora_lightx2v_i2v_rank64_4step";
const KIJAI_I2V: &str = "lora_kijai_lightx2v_I2V_14B_480p_rank64";
const KIJAI_T2V: &str = "lora_kijai_lightx2v_T2V_14B_rank64";

#[test]
fn published_loras_resolve_completely() {
    let folder = tempfile::tempdir().unwrap();
    let i2v = open("orig_i2v_14B_480P_dit", folder.path(), true);
    let t2v = open("orig_t2v_14B_dit", folder.path(), true);
    let lora = |name: &str| Lora { weights: open(name, folder.path(), false), strength: 1.0, blocks: None };
    let report = |model: &WeightSet, name: &str| {
        let report = LoraReport::of(model, &[lora(name)]).unwrap().remove(0);
        (report.applied, report.skipped.len())
    };
    assert_eq!(report(&i2v, KIJAI_I2V), (1749, 0));
    assert_eq!(report(&i2v, LIGHTX2V_I2V), (1749, 0));
    assert_eq!(report(&t2v, KIJAI_T2V), (1459, 0));
    // Across kinds of model: what looks at the image has no counterpart.
    assert_eq!(report(&i2v, KIJAI_T2V), (1459, 0));
    let (applied, skipped) = report(&t2v, KIJAI_I2V);
    // A block's k_img and v_img (3 each) and norm_k_img; in the image embedding two norms (2) and two linears (3).
    assert_eq!((applied, skipped), (1459, 40 * 7 + 10));
    let skipped_patch = LoraReport::of(&t2v, &[lora(LIGHTX2V_I2V)]).unwrap().remove(0).skipped;
    assert_eq!(skipped_patch.len(), 40 * 7 + 10 + 1);
    assert!(skipped_patch.contains(&"diffusion_model.patch_embedding.diff".to_string()));
}
