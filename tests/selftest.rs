//! `selftest`, `bench` and `synthesize`, which are for machines with a GPU, on the CPU.

use std::path::Path;

use serde_json::Value;

use crate::support::{Sandbox, assert_fails, stdout};

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn everything_passes_on_the_cpu() {
    let sandbox = Sandbox::new();
    let table = stdout(&sandbox.run(&["selftest", "--device", "cpu", "--json", "rows.jsonl"]));
    let rows = rows(&sandbox.path("rows.jsonl"));
    assert_eq!(table.lines().count(), rows.len());
    assert!(rows.len() > 200, "{} rows", rows.len());
    for row in &rows {
        assert_eq!(row["outcome"], "passed", "{row}");
        assert!(!row["checks"].as_array().unwrap().is_empty(), "{row}");
    }
    for group in ["ops", "components", "jobs"] {
        assert!(rows.iter().any(|row| row["group"] == group), "{group}");
    }
}

#[test]
fn rows_are_chosen_by_name() {
    let sandbox = Sandbox::new();
    let table = stdout(&sandbox.run(&["selftest", "--device", "cpu", "--only", "ops/rms_norm bf16"]));
    assert!(table.lines().count() == 4 && table.lines().all(|l| l.contains("rms_norm bf16")), "{table}");
    assert_fails(&sandbox.run(&["selftest", "--device", "cpu", "--only", "nothing"]), 2, "--only");
}

/// A synthetic model is one that every command takes; its blocks are those of a reference made elsewhere.
#[test]
fn a_synthetic_model_is_written_checked_and_timed() {
    let sandbox = Sandbox::new();
    let synthesize = |folder: &str, seed: &str| {
        let out = stdout(&sandbox.run(&["synthesize", folder, "--layout", "tiny", "--seed", seed]));
        (out.trim().to_string(), std::fs::read(sandbox.path(folder).join("dit.safetensors")).unwrap())
    };
    let ((model, first), (_, again), (_, other)) =
        (synthesize("a", "1"), synthesize("b", "1"), synthesize("c", "2"));
    assert!(first == again && first != other);

    let size = ["--device", "cpu", "--model", &model, "--size", "64x64x5", "--json", "rows.jsonl"];
    let checked = sandbox
        .run(&[&["selftest", "--only", "model/", "--steps", "2", "--swap", "0,1"][..], &size].concat());
    assert!(checked.status.success(), "{checked:?}");
    let timed = sandbox.run(&[&["bench", "--runs", "1", "--swap", "0"][..], &size].concat());
    assert!(timed.status.success(), "{timed:?}");
    let rows = rows(&sandbox.path("rows.jsonl"));
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in ["64x64x5, 2 steps, 1 swapped", "fast swap 0 64x64x5", "decode tiled 64x64x5", "image"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(rows.iter().all(|row| row["outcome"] != "failed" && row["outcome"] != "error"), "{rows:?}");
}

#[test]
fn rows_behind_the_time_limit_are_skipped() {
    let sandbox = Sandbox::new();
    let args = ["bench", "--device", "cpu", "--limit-seconds", "0", "--json", "rows.jsonl"];
    assert!(sandbox.run(&args).status.success());
    assert!(rows(&sandbox.path("rows.jsonl")).iter().all(|row| row["outcome"] == "skipped"));
}
