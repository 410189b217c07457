//! Damaged and hostile files: an error, and neither a crash nor memory beyond the file.

mod support;

use std::path::Path;

use proptest::prelude::*;
use support::{gguf, pth};
use wan_core::WeightSet;
use wan_core::testkit::repo_path;
use wan_core::weights::Bytes;

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn good_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}}"#;
    safetensors(header, 24)
}

fn good_gguf() -> Vec<u8> {
    gguf::bytes(&[
        gguf::Tensor { name: "a", shape: vec![2, 3], kind: 0, data: vec![0; 24] },
        gguf::Tensor { name: "b", shape: vec![2, 32], kind: 8, data: vec![1; 68] },
    ])
}

fn good_pth() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pth");
    let data = [1u8; 24];
    let tensor = |name, shape| pth::Tensor { name, dtype: "F32", shape, data: Some(&data) };
    pth::write(&path, "archive", &[tensor("a", vec![2, 3]), tensor("b", vec![6])]);
    std::fs::read(path).unwrap()
}

fn open(bytes: Vec<u8>) -> wan_core::Result<WeightSet> {
    WeightSet::from_bytes("file", Bytes::new(bytes))
}

fn error(bytes: Vec<u8>) -> String {
    let error = open(bytes).expect_err("a damaged file opened").to_string();
    assert!(error.starts_with("file: ") || error.starts_with("tensor "), "{error}");
    error
}

#[test]
fn whole_files_open() {
    for (bytes, names) in [(good_safetensors(), 2), (good_gguf(), 2), (good_pth(), 2)] {
        assert_eq!(open(bytes).unwrap().iter().count(), names);
    }
}

#[test]
fn damaged_safetensors_are_refused() {
    let mut huge = good_safetensors();
    huge[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert!(error(huge).contains("header too large"));
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    assert!(error(safetensors(overlapping, 12)).contains("offset"));
    let terabyte = r#"{"a":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,1099511627776]}}"#;
    error(safetensors(terabyte, 16));
    let wraps = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    error(safetensors(wraps, 0));
    error(safetensors("{\"a\":", 0));
    let whole = good_safetensors();
    for n in 0..whole.len() {
        error(whole[..n].to_vec());
    }
}

/// A number in a name is no reason to count that far, nor to take memory for so many layers.
#[test]
fn numbers_in_names_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.safetensors");
    for (marker, layers) in [
        ("decoder.middle.0.residual.2.weight", "encoder.downsamples.{}.resample.1.bias"),
        ("decoder.mid_block.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.{}.conv1.weight"),
        ("head.modulation", "blocks.{}.x"),
        ("condition_embedder.time_proj.weight", "blocks.{}.x"),
    ] {
        for number in ["1048576", "99999999999999", "18446744073709551614", "18446744073709551615"] {
            let tensor = |name: &str, start: usize| {
                format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{}]}}"#, start + 4)
            };
            let header = format!("{{{},{}}}", tensor(marker, 0), tensor(&layers.replace("{}", number), 4));
            std::fs::write(&path, safetensors(&header, 8)).unwrap();
            let report = wan_checkpoint::inspect(&path);
            assert!(report.map_or(true, |report| report.problem.is_some()), "{marker} {number}");
        }
    }
}

#[test]
fn names_that_a_terminal_would_obey_are_refused() {
    let escape = r#"{"a\u001b[31m":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(error(safetensors(escape, 4)).contains("control characters"));
}

#[test]
fn damaged_gguf_is_refused() {
    let whole = good_gguf();
    for n in 0..whole.len() {
        error(whole[..n].to_vec());
    }
    let mut counts = whole.clone();
    counts[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(error(counts).contains("ends early"));
    let quantised =
        gguf::bytes(&[gguf::Tensor { name: "a", shape: vec![256], kind: 20, data: vec![0; 144] }]);
    let message = error(quantised);
    assert!(message.contains("tensor a has dtype an IQ type, expected F32, F16, BF16, Q4_0, "), "{message}");
    assert!(message.contains(", Q5_K or Q6_K"), "{message}");
}

#[test]
fn damaged_pth_is_refused_and_code_is_not_run() {
    let whole = good_pth();
    for n in 4..whole.len() {
        error(whole[..n].to_vec());
    }
    // A valid archive whose pickle asks for `posix.system("true")`.
    let hostile = repo_path("crates/wan-checkpoint/tests/corpus/pth-system.bin");
    let message = error(std::fs::read(hostile).unwrap());
    assert!(message.contains("`posix.system`") && message.contains("not run"), "{message}");
    let bare = error(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.".to_vec());
    assert!(bare.contains("a bare pickle"), "{bare}");
}

#[test]
fn the_kept_corpus_does_no_harm() {
    let folder = repo_path("crates/wan-checkpoint/tests/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "bin") {
            exercise(std::fs::read(&path).unwrap());
            from_disk(&path);
            count += 1;
        }
    }
    assert!(count >= 6, "{count} files in {}", folder.display());
}

/// Opens and, where that succeeds, reads every value; nothing may panic.
fn exercise(bytes: Vec<u8>) {
    let length = bytes.len();
    if let Ok(set) = open(bytes) {
        for stored in set.iter() {
            assert!(stored.bytes().len() <= length);
            let _ = stored.to_f32_vec();
        }
        let _ = set.with_scales();
        let _ = wan_checkpoint::identify(&set);
    }
}

fn from_disk(path: &Path) {
    let _ = WeightSet::open(path);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_do_no_harm(
        kind in 0usize..3,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = [good_safetensors, good_gguf, good_pth][kind]();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        exercise(bytes);
    }

    #[test]
    fn random_bytes_behind_a_magic_do_no_harm(kind in 0usize..4, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = [&b"GGUF\x03\x00\x00\x00"[..], b"PK\x03\x04", b"\x80\x02", b"\x20\0\0\0\0\0\0\0{"][kind].to_vec();
        bytes.extend(tail);
        exercise(bytes);
    }
}
