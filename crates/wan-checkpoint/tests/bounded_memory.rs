//! Damaged and hostile files of every kind that is read: a result or a one-line error, no panic, and no more memory
//! than the file's own length warrants, whatever it claims.
//!
//! The one test of its binary, because the allocator counts all threads together.

mod support;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{gguf, pth};
use wan_core::WeightSet;
use wan_core::testkit::{PeakMemory, repo_path};
use wan_core::weights::Bytes;
use wan_dit::{Lora, LoraReport};
use wan_umt5::tokenizer::Tokenizer;

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

/// Every file costs this much: messages, buffers, the compiled patterns of a tokenizer.
const FIXED: usize = 2 << 20;

/// Bytes of memory per byte of file. A header becomes maps of strings and a vocabulary a trie of hash maps with an
/// entry per letter; what only claims to be long takes nothing. Set from the tokenizer, the largest.
const PER_BYTE: usize = 400;

/// A file of 1 KB may claim 1 TB; this is far below that and far above [`PER_BYTE`] of the longest file here.
const NEVER: usize = 512 << 20;

type Loaded = Result<(), String>;
type Load = dyn Fn(&[u8]) -> Loaded;

/// A loader, a good file of its kind, and the folder of the corpus.
struct Kind {
    name: &'static str,
    corpus: &'static str,
    extension: &'static str,
    good: Vec<u8>,
    load: Box<Load>,
    cases: u32,
}

#[test]
fn no_file_takes_more_memory_than_its_length_warrants() {
    let scratch = tempfile::tempdir().unwrap();
    for kind in kinds(scratch.path()) {
        assert_eq!(kind.checked(&kind.good), Ok(()), "{}: the good file", kind.name);
        assert!(kind.checked(b"").is_err(), "{}: an empty file", kind.name);
        for path in kind.kept() {
            let bytes = std::fs::read(&path).unwrap();
            let error = kind.checked(&bytes).expect_err(&format!("{} loads", path.display()));
            println!("{}: {error}", path.file_name().unwrap().display());
        }
        kind.fuzz();
    }
}

impl Kind {
    /// Loads, with the checks that hold for every file, good or not.
    fn checked(&self, bytes: &[u8]) -> Loaded {
        let (peak, loaded) = MEMORY.of(|| (self.load)(bytes));
        let most = (FIXED + PER_BYTE * bytes.len()).min(NEVER);
        assert!(peak <= most, "{}: {peak} bytes of memory for a file of {}", self.name, bytes.len());
        if let Err(error) = &loaded {
            assert!(!error.is_empty() && !error.contains('\n'), "{}: {error:?}", self.name);
        }
        loaded
    }

    /// The files of the corpus, all of which must be refused.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = repo_path("crates/wan-checkpoint/tests/corpus").join(self.corpus);
        let all = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        let mut kept: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == self.extension)).collect();
        kept.sort();
        assert!(kept.len() >= 4, "{} files in {}", kept.len(), folder.display());
        kept
    }

    /// The good file with bytes changed, half of them near its start, where headers are; cut; or with a piece twice.
    fn fuzz(&self) {
        let at = || (any::<bool>(), any::<prop::sample::Index>());
        let edits = proptest::collection::vec((at(), any::<u8>()), 1..6);
        let mutation = (edits, proptest::option::of(at()), proptest::option::of((at(), 1usize..40)));
        let config = Config { cases: self.cases, failure_persistence: None, ..Config::default() };
        let place = |(near, index): (bool, prop::sample::Index), length: usize| {
            index.index(if near { length.min(600) } else { length }.max(1))
        };
        let run = TestRunner::new(config).run(&mutation, |(edits, cut, twice)| {
            let mut bytes = self.good.clone();
            for (at, value) in edits {
                let at = place(at, bytes.len());
                bytes[at] = value;
            }
            if let Some((at, length)) = twice {
                let from = place(at, bytes.len());
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(from..from, piece);
            }
            if let Some(at) = cut {
                bytes.truncate(place(at, bytes.len()));
            }
            let _ = self.checked(&bytes);
            Ok(())
        });
        run.unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }
}

fn kinds(scratch: &Path) -> Vec<Kind> {
    let golden = |name: &str| std::fs::read(repo_path("tests/golden").join(name)).unwrap();
    let weights = |name, good| Kind {
        name,
        corpus: "",
        extension: "bin",
        good,
        load: Box::new(|bytes| open(bytes).map(drop)),
        cases: 150,
    };
    let tokenizer = |name, extension, good, cases| Kind {
        name,
        corpus: "tokenizer",
        extension,
        good,
        load: Box::new(tokenize),
        cases,
    };
    let folder = scratch.to_path_buf();
    std::fs::write(folder.join("a.safetensors"), good_safetensors()).unwrap();
    vec![
        weights("safetensors", good_safetensors()),
        weights("GGUF", good_gguf()),
        weights("PyTorch", good_pth(scratch)),
        Kind {
            name: "index",
            corpus: "index",
            extension: "json",
            good: br#"{"metadata":{"total_size":24},"weight_map":{"a":"a.safetensors","b":"a.safetensors"}}"#
                .to_vec(),
            load: Box::new(move |bytes| index(&folder, bytes)),
            cases: 100,
        },
        Kind {
            name: "LoRA",
            corpus: "lora",
            extension: "safetensors",
            good: std::fs::read(repo_path("crates/wan-checkpoint/tests/corpus/lora/good.safetensors.whole"))
                .unwrap(),
            load: Box::new(lora(model())),
            cases: 100,
        },
        tokenizer("SentencePiece model", "model", golden("sentencepiece/plain.model"), 40),
        tokenizer("SentencePiece model with a map", "model", golden("sentencepiece/umt5.model"), 12),
        tokenizer("tokenizer.json", "json", small_tokenizer(), 40),
    ]
}

fn open(bytes: &[u8]) -> Result<WeightSet, String> {
    WeightSet::from_bytes("file", Bytes::new(bytes.to_vec())).map_err(|e| e.to_string())
}

fn index(folder: &Path, bytes: &[u8]) -> Loaded {
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(&path, bytes).unwrap();
    WeightSet::open(&path).map(drop).map_err(|e| e.to_string())
}

fn model() -> WeightSet {
    WeightSet::open(&repo_path("tests/golden/dit/i2v.weights.safetensors")).unwrap()
}

fn lora(model: WeightSet) -> impl Fn(&[u8]) -> Loaded {
    move |bytes| {
        let lora = Lora { weights: open(bytes)?, strength: 1.0, blocks: None };
        LoraReport::of(&model, &[lora]).map(drop).map_err(|e| e.to_string())
    }
}

fn tokenize(bytes: &[u8]) -> Loaded {
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
    let text = "a red balloon  rises, 猫 é ½ ﬁ ｶﾞ 🎈 한 <pad>";
    tokenizer.encode(text).map(drop).map_err(|e| e.to_string())
}

fn good_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 24, 0);
    bytes
}

fn good_gguf() -> Vec<u8> {
    gguf::bytes(&[
        gguf::Tensor { name: "a", shape: vec![2, 3], kind: 0, data: vec![0; 24] },
        gguf::Tensor { name: "b", shape: vec![2, 32], kind: 8, data: vec![1; 68] },
    ])
}

fn good_pth(folder: &Path) -> Vec<u8> {
    let path = folder.join("a.pth");
    let data = [1u8; 24];
    let tensor = |name, shape| pth::Tensor { name, dtype: "F32", shape, data: Some(&data) };
    pth::write(&path, "archive", &[tensor("a", vec![2, 3]), tensor("b", vec![6])]);
    std::fs::read(path).unwrap()
}

/// A `tokenizer.json` of a few pieces, with a character map that maps nothing.
fn small_tokenizer() -> Vec<u8> {
    br#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"Strip",
"strip_left":false,"strip_right":true}]},"pre_tokenizer":{"type":"Metaspace","replacement":"_",
"prepend_scheme":"always","split":true},"post_processor":null,"decoder":null,"model":{"type":"Unigram","unk_id":2,
"vocab":[["<pad>",0],["</s>",0],["<unk>",0],["_a",-1.5],["a",-2],["r",-3],["red",-2.5]],"byte_fallback":false}}"#
        .to_vec()
}
