//! What a conversion makes of inputs that are unusual, and the file it writes.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use wan_checkpoint::{ConvertOptions, Converted, ScaleUnit, Target, convert};
use wan_core::WeightSet;
use wan_core::progress::CancelToken;
use wan_core::testkit::repo_path;

const SCALED: Target = Target::Fp8Scaled(ScaleUnit::Tensor);

struct Scene {
    folder: TempDir,
    source: PathBuf,
    output: PathBuf,
}

/// A small DiT in f32, one value of one of its matrices changed, with `extra` and metadata.
fn scene(value: Option<f32>, extra: &[(&str, TensorView<'_>)], metadata: Option<(&str, &str)>) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let set = WeightSet::open(&repo_path("tests/golden/dit/i2v_1x128.weights.safetensors")).unwrap();
    let data: Vec<Vec<u8>> = set
        .iter()
        .map(|t| {
            let mut values = t.to_f32_vec().unwrap();
            if let Some(value) = value.filter(|_| t.name() == "blocks.0.ffn.0.weight") {
                values[5] = value;
            }
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        })
        .collect();
    let views = set.iter().zip(&data).map(|(t, data)| {
        (t.name().to_string(), TensorView::new(Dtype::F32, t.shape().to_vec(), data).unwrap())
    });
    let views = views.chain(extra.iter().map(|(name, view)| (name.to_string(), view.clone())));
    let metadata = metadata.map(|(k, v)| HashMap::from([(k.to_string(), v.to_string())]));
    let (source, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    std::fs::write(&source, safetensors::serialize(views, metadata).unwrap()).unwrap();
    Scene { folder, source, output }
}

impl Scene {
    fn convert(&self, output: &Path, target: Target) -> Result<Converted, String> {
        let options = ConvertOptions { target, overwrite: true };
        convert(&self.source, output, &options, &CancelToken::new(), |_, _, _| {}).map_err(|e| e.to_string())
    }

    /// The files in the folder.
    fn count(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }
}

#[test]
fn values_that_are_not_finite_are_refused_and_named() {
    for (value, target) in [
        (f32::INFINITY, SCALED),
        (f32::NAN, SCALED),
        (f32::NAN, Target::Fp8Scaled(ScaleUnit::Row)),
        (f32::NEG_INFINITY, Target::Fp8),
        (f32::NAN, Target::Bf16),
        (f32::MAX, Target::Bf16),
    ] {
        let scene = scene(Some(value), &[], None);
        let error = scene.convert(&scene.output, target).unwrap_err();
        assert!(error.contains("blocks.0.ffn.0.weight") && error.contains("finite"), "{value} {error}");
        assert_eq!(scene.count(), 1, "something is left of {value}");
    }
    let saturates = scene(Some(1e6), &[], None);
    saturates.convert(&saturates.output, Target::Fp8).unwrap();
}

#[test]
fn every_tensor_is_aligned_whatever_is_beside_it() {
    let data = 7i64.to_le_bytes();
    let odd = TensorView::new(Dtype::I64, vec![1], &data).unwrap();
    // One more matrix makes the number of scales odd.
    let matrix = TensorView::new(Dtype::F32, vec![1, 2], &data).unwrap();
    let extra = [("extra.position_ids", odd), ("blocks.0.ffn.9.weight", matrix)];
    let scene = scene(None, &extra, None);
    let done = scene.convert(&scene.output, SCALED).unwrap();
    assert_eq!(done.changed.len() % 2, 1, "with an even number of scales nothing is misaligned");
    let bytes = std::fs::read(&scene.output).unwrap();
    let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(length % 8, 0);
    for (name, info) in header.tensors() {
        let width = info.dtype.bitsize() / 8;
        assert_eq!(info.data_offsets.0 % width, 0, "{name} at {:?}", info.data_offsets);
    }
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("extra.position_ids").unwrap().data(), data);
    let scale = tensors.tensor("blocks.0.ffn.0.scale_weight").unwrap();
    assert!(f32::from_le_bytes(scale.data().try_into().unwrap()) < 1.0);
}

#[test]
fn metadata_stay_but_for_how_the_input_was_quantised() {
    for (key, kept) in [("title", true), ("_quantization_metadata", false)] {
        let scene = scene(None, &[], Some((key, "{}")));
        scene.convert(&scene.output, Target::Bf16).unwrap();
        assert_eq!(WeightSet::open(&scene.output).unwrap().metadata().contains_key(key), kept, "{key}");
    }
}

#[test]
fn the_output_has_the_usual_permissions_and_may_be_the_input() {
    let scene = scene(None, &[], None);
    let usual = std::fs::metadata(&scene.source).unwrap().permissions().mode();
    scene.convert(&scene.source, SCALED).unwrap();
    assert_eq!(std::fs::metadata(&scene.source).unwrap().permissions().mode(), usual);
    assert_eq!(scene.count(), 1);
    let again = scene.convert(&scene.output, SCALED).unwrap_err();
    assert!(again.contains("FP8 already"), "{again}");
    let folder = scene.convert(scene.folder.path(), Target::Bf16).unwrap_err();
    assert!(folder.contains("the folder "), "{folder}");
}
