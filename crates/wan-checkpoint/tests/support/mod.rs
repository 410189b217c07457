//! Sparse files of true size from the manifests of `tests/layouts`.

#![allow(dead_code)] // each test binary uses a part

pub mod gguf;
pub mod pth;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wan_core::testkit::repo_path;

/// Names, dtypes and shapes of a published checkpoint.
pub struct Manifest(Value);

impl Manifest {
    /// Reads `tests/layouts/{name}.json.gz`.
    pub fn open(name: &str) -> Self {
        let path = repo_path("tests/layouts").join(format!("{name}.json.gz"));
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut text = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    /// Published length of all files together.
    pub fn bytes(&self) -> u64 {
        self.0["bytes"].as_u64().unwrap()
    }

    /// Number of tensors.
    pub fn count(&self) -> usize {
        self.0["tensors"].as_object().unwrap().len()
    }

    /// Writes the sparse file or files into `folder` and returns what a user would open.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let tensors = self.0["tensors"].as_object().unwrap();
        let metadata = &self.0["metadata"];
        match self.0["format"].as_str().unwrap() {
            "safetensors" => {
                let path = folder.join(base_name(&self.0["file"]));
                let all: Vec<(&String, &Value)> = tensors.iter().collect();
                let bytes = safetensors(&path, &all, metadata, self.0["header_bytes"].as_u64());
                assert_eq!(bytes, self.bytes(), "the manifest is not byte-exact");
                path
            }
            "safetensors-sharded" => {
                let all: Vec<(&String, &Value)> = tensors.iter().collect();
                let (mut weight_map, mut bytes) = (Map::new(), 0);
                for shard in self.0["shards"].as_array().unwrap() {
                    let name = base_name(&shard["file"]);
                    let of_shard: Vec<_> = shard["tensors"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|i| all[i.as_u64().unwrap() as usize])
                        .collect();
                    weight_map.extend(of_shard.iter().map(|(tensor, _)| (tensor.to_string(), json!(name))));
                    bytes +=
                        safetensors(&folder.join(&name), &of_shard, metadata, shard["header_bytes"].as_u64());
                }
                assert_eq!(bytes, self.bytes(), "the manifest is not byte-exact");
                let index = folder.join(base_name(&self.0["index"]));
                std::fs::write(&index, json!({"metadata": {}, "weight_map": weight_map}).to_string())
                    .unwrap();
                folder.to_path_buf()
            }
            "torch-zip-pickle" => {
                let path = folder.join(base_name(&self.0["file"]));
                let tensors: Vec<pth::Tensor<'_>> = tensors
                    .iter()
                    .map(|(name, spec)| pth::Tensor {
                        name,
                        dtype: spec[0].as_str().unwrap(),
                        shape: shape(spec),
                        data: None,
                    })
                    .collect();
                pth::write(&path, self.0["archive_root"].as_str().unwrap(), &tensors);
                path
            }
            other => panic!("format {other}"),
        }
    }
}

fn base_name(file: &Value) -> String {
    Path::new(file.as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_string()
}

fn shape(spec: &Value) -> Vec<u64> {
    spec[1].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect()
}

/// Bytes of a value of a safetensors dtype.
pub fn width(dtype: &str) -> u64 {
    match dtype {
        "U8" | "F8_E4M3" => 1,
        "F16" | "BF16" => 2,
        "F32" => 4,
        "I64" => 8,
        other => panic!("dtype {other}"),
    }
}

/// Writes a header, padded to `header_bytes`, and a hole as long as the data; returns the file's length.
fn safetensors(
    path: &Path,
    tensors: &[(&String, &Value)],
    metadata: &Value,
    header_bytes: Option<u64>,
) -> u64 {
    let (mut header, mut at) = (Map::new(), 0);
    if metadata.as_object().is_some_and(|m| !m.is_empty()) {
        header.insert("__metadata__".into(), metadata.clone());
    }
    for (name, spec) in tensors {
        let end = at + shape(spec).iter().product::<u64>() * width(spec[0].as_str().unwrap());
        header
            .insert(name.to_string(), json!({"dtype": spec[0], "shape": spec[1], "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    let length = header_bytes.map_or(text.len().next_multiple_of(8), |n| n as usize);
    assert!(length >= text.len());
    text.resize(length, b' ');
    let mut file = File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&text).unwrap();
    let total = 8 + text.len() as u64 + at;
    file.set_len(total).unwrap();
    total
}
