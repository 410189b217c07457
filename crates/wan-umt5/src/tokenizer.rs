//! Token ids of a prompt: the SentencePiece unigram model of google/umt5-xxl, read from `tokenizer.json`, from
//! the SentencePiece file itself, or from what llama.cpp's GGUF files hold of it.
//!
//! Source: Wan2.1 `wan/modules/tokenizers.py`, HuggingfaceTokenizer. The begin-of-sequence token is never
//! added; the end-of-sequence token always is, and survives truncation.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokenizers::PostProcessorWrapper;

use crate::clean::clean_prompt;
use crate::{charsmap, gguf_vocabulary, sentencepiece};

/// Length to which Wan2.1 truncates and pads, the end-of-sequence token included.
pub const TEXT_LEN: usize = 512;

const EOS: &str = "</s>";
const PAD: &str = "<pad>";

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("tokenizer {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The content is no tokenizer description.
    #[error("tokenizer: not a valid {form}: {detail}")]
    Parse {
        /// What was tried: `tokenizer.json`, `SentencePiece model` or `GGUF vocabulary`.
        form: &'static str,
        /// What the parser found.
        detail: String,
    },
    /// A token that the encoder relies on does not exist.
    #[error("tokenizer: no token '{token}', expected the vocabulary of a umt5 tokenizer")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
    /// The text length leaves no room for the end-of-sequence token.
    #[error("text length is {found}, expected at least 1")]
    TextLen {
        /// The length as given.
        found: usize,
    },
    /// The text cannot be encoded.
    #[error("tokenizer: cannot encode the text: {detail}")]
    Encode {
        /// What the tokenizer said.
        detail: String,
    },
}

/// Token ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The ids, end-of-sequence token last; 1 to `text_len` of them, no padding.
    pub ids: Vec<u32>,
    /// Tokens at the end of the text for which there was no room.
    pub left_out: usize,
    text_len: usize,
    pad: u32,
}

impl Encoded {
    /// The ids, padded on the right to the text length: the `[text_len]` the reference feeds its encoder.
    pub fn padded_ids(&self) -> Vec<u32> {
        let mut ids = self.ids.clone();
        ids.resize(self.text_len, self.pad);
        ids
    }

    /// 1 for every id, the end-of-sequence token included, 0 for padding: `[text_len]`.
    pub fn attention_mask(&self) -> Vec<u32> {
        let mut mask = vec![1; self.ids.len()];
        mask.resize(self.text_len, 0);
        mask
    }
}

/// A loaded tokenizer. Encoding needs no exclusive access, so threads can share it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eos: u32,
    pad: u32,
    text_len: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` or a SentencePiece model (`spiece.model`).
    ///
    /// Errors: `Read`, and those of [`Self::from_bytes`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .map_err(|source| TokenizerError::Read { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the content of a `tokenizer.json`, a serialised SentencePiece unigram model, or the start of a GGUF file up to
    /// the end of its metadata: what it is, the first bytes tell, as JSON starts with `{` and no such model does.
    ///
    /// Errors: `Parse`, `MissingToken`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (form, read): (_, fn(&[u8]) -> _) = if bytes.trim_ascii_start().first() == Some(&b'{') {
            ("tokenizer.json", from_json)
        } else if bytes.starts_with(b"GGUF") {
            ("GGUF vocabulary", gguf_vocabulary::tokenizer)
        } else {
            ("SentencePiece model", sentencepiece::tokenizer)
        };
        let damaged = |detail: String| TokenizerError::Parse { form, detail: one_line(&detail) };
        let parse = |e: tokenizers::Error| damaged(e.to_string());
        let mut inner = read(bytes).map_err(damaged)?;
        // Truncation, padding and special tokens are seen to here, whatever the file says.
        inner.with_truncation(None).map_err(parse)?.with_padding(None);
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let id = |token| inner.token_to_id(token).ok_or(TokenizerError::MissingToken { token });
        let (eos, pad) = (id(EOS)?, id(PAD)?);
        Ok(Self { inner, eos, pad, text_len: TEXT_LEN })
    }

    /// The same tokenizer with another text length, for models with a shorter context.
    ///
    /// Errors: `TextLen` if it is 0.
    pub fn with_text_len(self, text_len: usize) -> Result<Self, TokenizerError> {
        if text_len == 0 {
            return Err(TokenizerError::TextLen { found: text_len });
        }
        Ok(Self { text_len, ..self })
    }

    /// Length to which texts are truncated and padded.
    pub fn text_len(&self) -> usize {
        self.text_len
    }

    /// Cleans a prompt as the reference does ([`clean_prompt`]) and encodes it.
    ///
    /// Errors: `Encode`.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Encoded, TokenizerError> {
        self.encode(&clean_prompt(prompt))
    }

    /// Encodes a text as it is: pieces, then the end-of-sequence token, at most the text length in all.
    /// An empty text is the end-of-sequence token alone.
    ///
    /// Errors: `Encode`.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| TokenizerError::Encode { detail: one_line(&e.to_string()) })?;
        let pieces = encoding.get_ids();
        let mut ids = pieces[..pieces.len().min(self.text_len - 1)].to_vec();
        let left_out = pieces.len() - ids.len();
        ids.push(self.eos);
        Ok(Encoded { ids, left_out, text_len: self.text_len, pad: self.pad })
    }
}

/// Reads a `tokenizer.json`; what the library would panic at is looked for first.
fn from_json(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Parts {
        normalizer: Value,
        pre_tokenizer: Value,
        /// Of no use here, but the library panics at one that cannot be parsed.
        #[serde(rename = "decoder")]
        _decoder: Value,
    }
    let parts: Parts = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    check_parts(&parts.normalizer, "normalizers", &check_normalizer)?;
    check_parts(&parts.pre_tokenizer, "pretokenizers", &check_pre_tokenizer)?;
    tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())
}

/// Calls `check` with a part of a tokenizer and with the parts in its list `nested`, however deep.
fn check_parts(
    part: &Value,
    nested: &str,
    check: &dyn Fn(&Value) -> Result<(), String>,
) -> Result<(), String> {
    if part.is_null() {
        return Ok(());
    }
    let kind = &part["type"];
    if !part.is_object() || !(kind.is_null() || kind.is_string()) {
        return Err(format!(
            "found a part with type {kind} in {nested}, expected an object whose type is a name"
        ));
    }
    check(part)?;
    part[nested].as_array().into_iter().flatten().try_for_each(|inner| check_parts(inner, nested, check))
}

fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    const MAP: &str = "precompiled_charsmap";
    match normalizer.get(MAP) {
        Some(Value::String(map)) => {
            let map = STANDARD.decode(map).map_err(|e| format!("a character map: {e}"))?;
            charsmap::check(&map)
        }
        None if normalizer["type"] != "Precompiled" => Ok(()),
        found => {
            let found = found
                .map_or("none".into(), |f| one_line(&f.to_string()).chars().take(40).collect::<String>());
            Err(format!("a normalizer whose {MAP} is {found}, expected base64 text"))
        }
    }
}

fn check_pre_tokenizer(pre_tokenizer: &Value) -> Result<(), String> {
    if pre_tokenizer["type"] == "FixedLength" && pre_tokenizer["length"] == 0 {
        return Err("a pre-tokenizer that cuts into pieces of length 0, expected at least 1".into());
    }
    Ok(())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
