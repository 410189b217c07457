//! The encoder against transformers' `UMT5EncoderModel`: fixtures of `tests/golden/umt5`.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::CancelToken;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};
use wan_core::weights::{Bytes, GGUF_VOCABULARY};
use wan_core::{Stored, WeightSet};
use wan_umt5::Umt5;

fn open(weights: &str, dtype: DType) -> Umt5 {
    Umt5::open(&Golden::open(weights).0, None, &Device::Cpu, dtype).unwrap()
}

fn input(io: &Golden, name: &str) -> Tensor {
    let values = io.i64(name);
    let length = values.len();
    Tensor::from_vec(values, (1, length), &Device::Cpu).unwrap()
}

fn run(model: &Umt5, io: &Golden) -> Tensor {
    model.encode_padded(&input(io, "input_ids"), &input(io, "attention_mask")).unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The weights of a golden file without its configuration, `change` applied to the list.
fn bare(weights: &str, change: impl FnOnce(&mut Vec<Stored>)) -> WeightSet {
    let mut tensors: Vec<Stored> = Golden::open(weights).0.iter().cloned().collect();
    change(&mut tensors);
    WeightSet::from_tensors("file", tensors)
}

fn error_of(set: &WeightSet) -> String {
    Umt5::open(set, None, &Device::Cpu, DType::F32).unwrap_err().to_string()
}

#[test]
fn equals_transformers_in_both_namings() {
    let cases = [
        ("umt5/umt5.weights.safetensors", "umt5/umt5.io.safetensors"),
        ("umt5/umt5_transformers.weights.safetensors", "umt5/umt5_transformers.io.safetensors"),
        ("umt5/umt5.weights.safetensors", "umt5/long.io.safetensors"), // beyond the last bucket's start
        ("umt5/umt5.weights.safetensors", "umt5/one.io.safetensors"),
    ];
    for (weights, io) in cases {
        let golden = Golden::open(io);
        let found = run(&open(weights, DType::F32), &golden);
        // f32 rounding through two blocks; transformers itself differs by about 5e-7 between batch layouts.
        assert_close(io, &found, &golden.f32("expected.text_embeds"), 5e-6);
    }
    let io = Golden::open("umt5/umt5.io.safetensors");
    let [a, b] = ["umt5/umt5.weights.safetensors", "umt5/umt5_transformers.weights.safetensors"]
        .map(|weights| bits(&run(&open(weights, DType::F32), &io)));
    assert_eq!(a, b, "the namings hold the same weights");
}

#[test]
fn prompts_in_lockstep_are_those_alone() {
    let model = open("umt5/umt5.weights.safetensors", DType::F32);
    let prompts: [&[u32]; 3] = [&[5, 7, 1], &[1], &[9, 8, 7, 6, 5, 4, 3, 2, 1]];
    let together = model.encode_all(&prompts, &CancelToken::new()).unwrap();
    assert_eq!(together.len(), 3);
    for (ids, found) in prompts.iter().zip(&together) {
        assert_eq!(bits(found), bits(&model.encode(ids).unwrap()));
    }
    assert!(model.encode_all(&[&[5, 1], &[]], &CancelToken::new()).is_err());
    let cancelled = CancelToken::new();
    cancelled.cancel();
    assert!(matches!(model.encode_all(&prompts, &cancelled), Err(wan_core::Error::Cancelled)));
}

#[test]
fn padding_changes_nothing() {
    let model = open("umt5/umt5.weights.safetensors", DType::F32);
    let io = Golden::open("umt5/umt5.io.safetensors");
    let real = io.i64("attention_mask").iter().filter(|m| **m == 1).count();
    let ids: Vec<u32> = io.i64("input_ids")[..real].iter().map(|id| *id as u32).collect();
    let padded = run(&model, &io).squeeze(0).unwrap();
    assert!(real < padded.dim(0).unwrap());
    assert_eq!(bits(&padded.narrow(0, 0, real).unwrap()), bits(&model.encode(&ids).unwrap()));
    let rest = padded.narrow(0, real, padded.dim(0).unwrap() - real).unwrap();
    assert!(bits(&rest).iter().all(|b| *b == 0));
}

#[test]
fn tokens_keep_their_positions_when_padding_comes_first() {
    let model = open("umt5/umt5.weights.safetensors", DType::F32);
    let ids = [7i64, 8, 9, 1];
    let row = |v: &[i64]| Tensor::new(v, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let left = model.encode_padded(&row(&[0, 0, 7, 8, 9, 1]), &row(&[0, 0, 1, 1, 1, 1])).unwrap();
    let plain = model.encode(&ids.map(|id| id as u32)).unwrap();
    assert_eq!(bits(&left.squeeze(0).unwrap().narrow(0, 2, 4).unwrap()), bits(&plain));
    // A hole widens the distance across it: another result than for adjacent tokens.
    let hole = model.encode_padded(&row(&[7, 8, 0, 9, 1]), &row(&[1, 1, 0, 1, 1])).unwrap();
    let hole = hole.squeeze(0).unwrap();
    assert!(bits(&hole.narrow(0, 2, 1).unwrap()).iter().all(|b| *b == 0));
    let first = distance(&hole.narrow(0, 0, 2).unwrap(), &plain.narrow(0, 0, 2).unwrap()).unwrap();
    assert!(first.relative_l2 > 1e-3, "{first:?}");
}

#[test]
fn half_precisions_stay_near_f32() {
    let io = Golden::open("umt5/umt5.io.safetensors");
    // A little above the dtype's rounding step (2^-8, 2^-11), as errors add up over the layers.
    for (dtype, tolerance) in [(DType::BF16, 0.03), (DType::F16, 0.004)] {
        let found = run(&open("umt5/umt5.weights.safetensors", dtype), &io);
        assert_eq!(found.dtype(), DType::F32);
        assert_close("half", &found, &io.f32("expected.text_embeds"), tolerance);
    }
}

#[test]
fn shapes_tell_the_configuration() {
    let io = Golden::open("umt5/umt5.io.safetensors");
    let expected = run(&open("umt5/umt5.weights.safetensors", DType::F32), &io);
    for weights in ["umt5/umt5.weights.safetensors", "umt5/umt5_transformers.weights.safetensors"] {
        let set = bare(weights, |_| {});
        let model = Umt5::open(&set, None, &Device::Cpu, DType::F32).unwrap();
        assert_eq!((model.config().num_heads, model.config().head_dim()), (3, 20));
        assert_eq!(bits(&run(&model, &io)), bits(&expected), "{weights}");
    }
}

#[test]
fn the_table_may_be_stored_under_either_or_both_names() {
    let weights = "umt5/umt5_transformers.weights.safetensors";
    let io = Golden::open("umt5/umt5_transformers.io.safetensors");
    let expected = bits(&run(&open(weights, DType::F32), &io));
    let renamed =
        |t: &Stored, name: &str| Stored::from_tensor(name, &t.to_f32_tensor(&Device::Cpu).unwrap()).unwrap();
    for keep_both in [true, false] {
        let set = bare(weights, |tensors| {
            let at = tensors.iter().position(|t| t.name() == "shared.weight").unwrap();
            let copy = renamed(&tensors[at], "encoder.embed_tokens.weight");
            if !keep_both {
                tensors.remove(at);
            }
            tensors.push(copy);
            // ComfyUI's files carry the SentencePiece model.
            tensors.push(Stored::new("spiece_model", DType::U8, vec![5], Bytes::new(*b"piece")).unwrap());
        });
        let model = Umt5::open(&set, None, &Device::Cpu, DType::F32).unwrap();
        assert_eq!(bits(&run(&model, &io)), expected, "keep both: {keep_both}");
    }
}

/// In a GGUF file the vocabulary may stand beside tensors of any naming.
#[test]
fn a_vocabulary_is_no_weight_under_any_naming() {
    let vocabulary = || Stored::new(GGUF_VOCABULARY, DType::U8, vec![4], Bytes::new(*b"GGUF")).unwrap();
    for weights in ["umt5/umt5.weights.safetensors", "umt5/umt5_transformers.weights.safetensors"] {
        let set = bare(weights, |tensors| tensors.push(vocabulary()));
        Umt5::open(&set, None, &Device::Cpu, DType::F32).unwrap();
    }
}

/// llama.cpp converts whole models, ComfyUI's users have the encoder alone: both open, and compute the same.
#[test]
fn a_decoder_is_left_out() {
    let encoder = WeightSet::open(&repo_path("tests/golden/foreign/umt5_llama_cpp.gguf")).unwrap();
    let zeros =
        |name| Stored::from_tensor(name, &Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let decoder = ["dec.blk.0.attn_q.weight", "dec.output_norm.weight", "output.weight"].map(zeros);
    let whole = WeightSet::from_tensors("file", encoder.iter().cloned().chain(decoder));
    let ids = Tensor::new(&[[5i64, 3, 1]], &Device::Cpu).unwrap();
    let mask = ids.ones_like().unwrap();
    let [alone, with_decoder] = [&encoder, &whole].map(|set| {
        let model = Umt5::open(set, None, &Device::Cpu, DType::F32).unwrap();
        bits(&model.encode_padded(&ids, &mask).unwrap())
    });
    assert_eq!(alone, with_decoder);
}

#[test]
fn a_wrong_file_is_named() {
    let weights = "umt5/umt5.weights.safetensors";
    let without = |name: &str| error_of(&bare(weights, |t| t.retain(|t| t.name() != name)));
    for name in ["blocks.1.ffn.fc2.weight", "blocks.0.attn.q.weight", "norm.weight", "token_embedding.weight"]
    {
        let error = without(name);
        assert!(error.starts_with("file: ") && error.contains(name), "{error}");
    }
    let scale = "extra.scale_weight"; // of a weight that is not there
    let scaled = error_of(&bare(weights, |t| {
        t.push(Stored::from_tensor(scale, &Tensor::zeros((), DType::F32, &Device::Cpu).unwrap()).unwrap())
    }));
    assert_eq!(scaled, "file: 1 unexpected: extra.scale_weight");
    let misshapen = error_of(&bare(weights, |t| {
        t.retain(|t| t.name() != "blocks.1.attn.o.weight");
        let o = Tensor::zeros((48, 59), DType::F32, &Device::Cpu).unwrap();
        t.push(Stored::from_tensor("blocks.1.attn.o.weight", &o).unwrap());
    }));
    assert_eq!(misshapen, "file: 1 misshapen: blocks.1.attn.o.weight (found [48, 59], expected [48, 60])");
}

#[test]
fn bad_inputs_are_errors() {
    let model = open("umt5/umt5.weights.safetensors", DType::F32);
    let row = |v: &[i64]| Tensor::new(v, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let message =
        |ids: &[i64], mask: &[i64]| model.encode_padded(&row(ids), &row(mask)).unwrap_err().to_string();
    assert_eq!(
        model.encode(&[]).unwrap_err().to_string(),
        "token ids: found none, expected at least the end token"
    );
    assert_eq!(
        model.encode(&[96]).unwrap_err().to_string(),
        "token id: found 96, expected below the vocabulary's 96"
    );
    assert_eq!(message(&[-1], &[1]), "token id: found -1, expected 0 to 95");
    assert_eq!(message(&[3, 1], &[1, 2]), "attention_mask: found 2, expected 0 or 1");
    assert_eq!(message(&[3, 1], &[1]), "attention_mask: found shape [1, 1], expected [1, 2]");
    let all_padding = model.encode_padded(&row(&[0, 0]), &row(&[0, 0])).unwrap();
    assert_eq!(all_padding.dims(), [1, 2, 48]);
    assert!(bits(&all_padding).iter().all(|b| *b == 0));
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let folder = std::env::temp_dir().join(format!("wan-umt5-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let error = |json: &str| {
        let file = folder.join("config.json");
        std::fs::write(&file, json).unwrap();
        let set = Golden::open("umt5/umt5.weights.safetensors").0;
        Umt5::open(&set, Some(Path::new(&file)), &Device::Cpu, DType::F32)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(
        error(r#"{"num_heads": 7}"#).contains("`dim_attn`: found 60, expected a multiple of num_heads 7")
    );
    assert!(error(r#"{"num_heads": 0}"#).contains("`num_heads`: found 0"));
    assert!(error(r#"{"num_buckets": 2}"#).contains("`num_buckets`: found 2"));
    assert!(error(r#"{"heads": 3}"#).contains("key `heads`"));
    assert!(error(r#"{"num_layers": 3}"#).contains("blocks.2.attn.q.weight"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn memory_figures_count_what_is_there() {
    let model = open("umt5/umt5.weights.safetensors", DType::F32);
    let set = bare("umt5/umt5.weights.safetensors", |_| {});
    assert_eq!(model.weight_bytes(), set.iter().map(|t| t.elements() as u64 * 4).sum::<u64>());
    // 512 tokens in f32: the stream and its norm 16.8 MB, the bias with its buckets 68.2 MB, q k v and the
    // mixed values 33.6 MB.
    assert_eq!(
        wan_umt5::Config::XXL.activation_bytes(1, 512, DType::F32),
        16_777_216 + 68_157_440 + 33_554_432
    );
}
