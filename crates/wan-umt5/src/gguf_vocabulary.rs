//! The vocabulary that llama.cpp's GGUF files hold among their metadata, as the SentencePiece model that it was made of.
//!
//! Source: llama.cpp `convert_hf_to_gguf.py`, T5Model.set_vocab (what is written); ComfyUI-GGUF `loader.py`,
//! gguf_tokenizer_loader (what is read).

use wan_core::weights::GgufMetadata;

use crate::sentencepiece::{self, Kind, ModelProto, NormalizerSpec, Piece, TrainerSpec};

/// The tokenizer that the start of a GGUF file describes.
///
/// Errors: a sentence saying what is damaged, missing or not a unigram model.
pub(crate) fn tokenizer(file: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    let metadata = GgufMetadata::read(file)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let missing = |name: &str| format!("no {} of the expected type", key(name));
    let model = metadata.text(&key("model")).ok_or_else(|| missing("model"))?;
    if model != "t5" {
        return Err(format!("found a vocabulary of type {model:?}, expected \"t5\""));
    }
    let texts = metadata.texts(&key("tokens")).ok_or_else(|| missing("tokens"))?;
    let scores = metadata.floats(&key("scores")).ok_or_else(|| missing("scores"))?;
    let kinds = metadata.integers(&key("token_type")).ok_or_else(|| missing("token_type"))?;
    if scores.len() != texts.len() || kinds.len() != texts.len() {
        return Err(format!(
            "found {} tokens, {} scores and {} types, expected as many of each",
            texts.len(),
            scores.len(),
            kinds.len()
        ));
    }
    let mut pieces = Vec::with_capacity(texts.len());
    for (id, ((text, score), kind)) in texts.into_iter().zip(scores).zip(kinds).enumerate() {
        let text = str::from_utf8(text).map_err(|_| format!("token {id} is not UTF-8"))?;
        let kind = i32::try_from(kind).ok().and_then(|kind| Kind::try_from(kind).ok());
        let kind = kind.ok_or_else(|| format!("token {id} has a type that SentencePiece has not"))?;
        pieces.push(Piece { piece: Some(text.to_string()), score: Some(score), kind: Some(kind.into()) });
    }
    // The rows of the embedding that no piece has are filled up with made-up ones of an impossible score.
    while pieces.last().is_some_and(|piece| piece.kind() == Kind::Unused) {
        pieces.pop();
    }
    let has_bytes = pieces.iter().any(|piece| piece.kind() == Kind::Byte);
    sentencepiece::build(&ModelProto {
        pieces,
        trainer: Some(TrainerSpec { byte_fallback: Some(has_bytes), ..TrainerSpec::default() }),
        normalizer: Some(NormalizerSpec {
            charsmap: metadata.bytes(&key("precompiled_charsmap")).map(<[u8]>::to_vec),
            add_dummy_prefix: metadata.flag(&key("add_space_prefix")),
            remove_extra_whitespaces: metadata.flag(&key("remove_extra_whitespaces")),
            ..NormalizerSpec::default()
        }),
    })
}
