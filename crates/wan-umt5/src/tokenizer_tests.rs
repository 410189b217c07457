use serde_json::json;

use super::*;

/// A unigram tokenizer of a few pieces, built as umt5's is: `▁` marks a word, unknown is 3.
fn small() -> serde_json::Value {
    let pieces = ["<pad>", "</s>", "<s>", "<unk>", "▁", "▁cat", "▁a", "s", "a", "c", "t", ",", "猫"];
    let vocab: Vec<_> = pieces.iter().enumerate().map(|(i, p)| json!([p, -(i as f64)])).collect();
    let special = |id: usize| {
        json!({"id": id, "content": pieces[id], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": null,
        "pre_tokenizer": metaspace,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}}},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": false},
    })
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(small().to_string().as_bytes()).unwrap()
}

#[test]
fn ends_with_eos_and_has_no_bos_whatever_the_file_says() {
    let encoded = tokenizer().encode("a cats cat").unwrap();
    assert_eq!(encoded.ids, [6, 5, 7, 5, 1]);
}

#[test]
fn an_empty_text_is_one_eos() {
    assert_eq!(tokenizer().encode("").unwrap().ids, [1]);
    assert_eq!(tokenizer().encode_prompt(" \u{3000}\n").unwrap().ids, [1]);
}

#[test]
fn truncation_keeps_eos() {
    for text_len in [1, 2, 5, 512] {
        let encoded = tokenizer().with_text_len(text_len).unwrap().encode(&"cat ".repeat(600)).unwrap();
        assert_eq!(encoded.ids.len(), text_len);
        assert_eq!(encoded.ids.last(), Some(&1));
        assert!(encoded.ids[..text_len - 1].iter().all(|&id| id == 5));
    }
    assert!(tokenizer().with_text_len(0).is_err());
}

#[test]
fn padding_and_mask_have_the_text_length() {
    let encoded = tokenizer().with_text_len(6).unwrap().encode("a cat").unwrap();
    assert_eq!(encoded.padded_ids(), [6, 5, 1, 0, 0, 0]);
    assert_eq!(encoded.attention_mask(), [1, 1, 1, 0, 0, 0]);
    assert_eq!(tokenizer().text_len(), 512);
    assert_eq!(tokenizer().encode("a").unwrap().padded_ids().len(), 512);
}

#[test]
fn unknown_characters_are_unk() {
    assert_eq!(tokenizer().encode("a🎈").unwrap().ids, [6, 3, 1]);
}

#[test]
fn a_prompt_is_cleaned_first() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.encode_prompt(" ａ，\u{a0} cat ").unwrap(), tokenizer.encode("a, cat").unwrap());
    assert_ne!(tokenizer.encode("ａ，").unwrap(), tokenizer.encode("a,").unwrap());
}

#[test]
fn damaged_files_are_named() {
    let message = Tokenizer::from_file("/nonexistent/tokenizer.json").unwrap_err().to_string();
    assert!(message.starts_with("tokenizer /nonexistent/tokenizer.json: "), "{message}");
    let message = Tokenizer::from_bytes(b"{\n\"model\": 3\n").unwrap_err().to_string();
    assert!(message.contains("tokenizer.json") && !message.contains('\n'), "{message}");
    let mut other = small();
    other["added_tokens"].as_array_mut().unwrap().remove(1);
    other["model"]["vocab"][1][0] = json!("<end>");
    let message = Tokenizer::from_bytes(other.to_string().as_bytes()).unwrap_err().to_string();
    assert!(message.contains("'</s>'"), "{message}");
}

#[test]
fn threads_share_a_tokenizer() {
    let tokenizer = tokenizer();
    let expected = tokenizer.encode("a cat s").unwrap();
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..4).map(|_| scope.spawn(|| tokenizer.encode("a cat s").unwrap())).collect();
        for task in tasks {
            assert_eq!(task.join().unwrap(), expected);
        }
    });
}

/// A file of these parts.
fn with(key: &str, part: serde_json::Value) -> String {
    let mut file = small();
    file[key] = part;
    file.to_string()
}

#[test]
fn what_the_library_would_panic_at_is_an_error() {
    let map = |value| json!({"type": "Precompiled", "precompiled_charsmap": value});
    let nested = |inner| json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, inner]});
    let cases = [
        with("normalizer", map(json!(null))),
        with("normalizer", map(json!(3))),
        with("normalizer", map(json!([0, 1]))),
        with("normalizer", json!({"type": "Precompiled"})),
        with("normalizer", json!({"type": {"Precompiled": null}})),
        with("normalizer", nested(map(json!(null)))),
        with("normalizer", nested(json!({"type": "Precompiled"}))),
        with("normalizer", json!({"normalizers": [{"type": "Precompiled"}]})),
        with("normalizer", nested(nested(json!({"type": "Precompiled"})))),
        with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        with(
            "pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}),
        ),
        with("normalizer", json!([[{"type": "Precompiled"}]])),
        with("decoder", json!({"x": "LATER"})).replace("\"LATER\"", "1e999"),
        with("decoder", json!({"x": "LATER"})).replace("LATER", "\\ud800"),
        with("decoder", json!({"x": "LATER"}))
            .replace("\"LATER\"", &format!("{}1{}", "[".repeat(200), "]".repeat(200))),
    ];
    for case in cases {
        let message = Tokenizer::from_bytes(case.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with("tokenizer: not a valid tokenizer.json: "), "{message}");
    }
    let message =
        Tokenizer::from_bytes(with("normalizer", map(json!(null))).as_bytes()).unwrap_err().to_string();
    assert!(
        message.ends_with("a normalizer whose precompiled_charsmap is null, expected base64 text"),
        "{message}"
    );
}

#[test]
fn the_parts_that_umt5_has_pass() {
    let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": true,
                            "strip_right": false}]});
    let words =
        json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, small()["pre_tokenizer"]]});
    for (key, part) in [("normalizer", normalizer), ("pre_tokenizer", words)] {
        assert_eq!(
            Tokenizer::from_bytes(with(key, part).as_bytes()).unwrap().encode(" a").unwrap().ids,
            [6, 1]
        );
    }
}
