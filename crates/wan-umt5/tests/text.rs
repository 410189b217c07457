//! Cleaning and token ids against the fixtures in `tests/golden/text`, made by Python's ftfy, html, re and
//! tokenizers; `tests/golden/README.md` tells how.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wan_umt5::clean::clean_prompt;
use wan_umt5::tokenizer::Tokenizer;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn rows(name: &str) -> Vec<Value> {
    let path = repository("tests/golden/text").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn cleaning_equals_python() {
    for (file, at_least) in [("clean.jsonl", 320), ("clean_extra.jsonl", 600)] {
        let rows = rows(file);
        assert!(rows.len() >= at_least, "{file} has {} rows", rows.len());
        for row in rows {
            assert_eq!(clean_prompt(row["in"].as_str().unwrap()), row["out"], "{file}: {}", row["in"]);
        }
    }
}

#[test]
fn token_ids_equal_python() {
    let tokenizer = Tokenizer::from_file(repository("models/tiny/tokenizer.json")).unwrap();
    let rows = rows("tokens.jsonl");
    assert!(rows.len() >= 100);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let expected: Vec<u32> =
            row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text).unwrap().ids, expected, "{text:?}");
    }
}
