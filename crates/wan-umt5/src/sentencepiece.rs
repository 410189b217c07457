//! A SentencePiece model (`spiece.model`, or ComfyUI's tensor `spiece_model`) as a tokenizer of the `tokenizers`
//! crate, built as Hugging Face converts T5's: the reference tokenizes with the result of that conversion.
//!
//! Source: sentencepiece `src/sentencepiece_model.proto` (messages); transformers `convert_slow_tokenizer.py`,
//! `SpmConverter` (which parts become what).

use prost::Message;
use tokenizers::AddedToken;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

/// Stands for a space inside pieces.
const SPACE: char = '\u{2581}';

/// `sentencepiece.ModelProto`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    pub(crate) trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    pub(crate) normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Piece {
    #[prost(string, optional, tag = "1")]
    pub(crate) piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(crate) score: Option<f32>,
    #[prost(enumeration = "Kind", optional, tag = "3", default = "Normal")]
    pub(crate) kind: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrainerSpec {
    #[prost(enumeration = "Algorithm", optional, tag = "3", default = "Unigram")]
    pub(crate) algorithm: Option<i32>,
    #[prost(bool, optional, tag = "35", default = "false")]
    pub(crate) byte_fallback: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Algorithm {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    pub(crate) add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    pub(crate) remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    pub(crate) escape_whitespaces: Option<bool>,
}

/// The tokenizer that a serialised `ModelProto` describes, without post-processor: the caller appends `</s>`.
///
/// Errors: a sentence saying what is damaged or not a unigram model.
pub(crate) fn tokenizer(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    build(&ModelProto::decode(bytes).map_err(|e| format!("not a SentencePiece model: {e}"))?)
}

/// The same of a model that was read.
pub(crate) fn build(model: &ModelProto) -> Result<tokenizers::Tokenizer, String> {
    // The library always writes both, after the pieces: one without them was cut off.
    let (Some(trainer), Some(normalizer)) = (&model.trainer, &model.normalizer) else {
        return Err("a SentencePiece model without its trainer's or normaliser's settings".into());
    };
    if trainer.algorithm() != Algorithm::Unigram {
        return Err(format!(
            "found a SentencePiece model of type {:?}, expected Unigram",
            trainer.algorithm()
        ));
    }
    if !normalizer.escape_whitespaces() {
        return Err(
            "found a SentencePiece model that does not escape whitespace, expected one that does".into()
        );
    }
    let unigram = unigram(&model.pieces, trainer.byte_fallback())?;
    let text = |e: tokenizers::Error| e.to_string();
    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    tokenizer.with_normalizer(Some(normalization(normalizer)?)).map_err(text)?;
    let prefix = if normalizer.add_dummy_prefix() { PrependScheme::Always } else { PrependScheme::Never };
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(SPACE, prefix, true)));
    // Control and user-defined pieces are matched as they are, before the text is normalised.
    let verbatim: Vec<AddedToken> = model
        .pieces
        .iter()
        .filter(|p| matches!(p.kind(), Kind::Control | Kind::UserDefined | Kind::Unknown))
        .map(|p| AddedToken::from(p.piece(), p.kind() != Kind::UserDefined).normalized(false))
        .collect();
    tokenizer.add_tokens(verbatim).map_err(text)?;
    Ok(tokenizer)
}

fn unigram(pieces: &[Piece], byte_fallback: bool) -> Result<Unigram, String> {
    let unknown = pieces
        .iter()
        .position(|p| p.kind() == Kind::Unknown)
        .ok_or("a SentencePiece model without a piece for what is unknown")?;
    let vocabulary = pieces.iter().map(|p| (p.piece().to_string(), f64::from(p.score()))).collect();
    Unigram::from(vocabulary, Some(unknown), byte_fallback).map_err(|e| e.to_string())
}

fn normalization(spec: &NormalizerSpec) -> Result<Sequence, String> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !spec.charsmap().is_empty() {
        crate::charsmap::check(spec.charsmap())?;
        let map = Precompiled::from(spec.charsmap())
            .map_err(|e| format!("a SentencePiece model with a damaged character map: {e:?}"))?;
        steps.push(map.into());
    }
    if spec.remove_extra_whitespaces() {
        steps.push(Strip::new(false, true).into());
        let several =
            Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(" {2,}".into()), SPACE)
                .map_err(|e| e.to_string())?;
        steps.push(several.into());
    }
    Ok(Sequence::new(steps))
}
