//! UMT5-XXL text encoder: cleaning, tokenizer, relative-position attention.
//!
//! What is easily got wrong:
//! - scores are **not** divided by `sqrt(head_dim)`;
//! - every block has a relative-position table of its own (T5 shares one);
//! - the tanh GELU is on the gate (`gate.0`, transformers' `wi_0`), not on `fc1` (`wi_1`);
//! - the norms subtract no mean and there are no biases anywhere;
//! - padding: only the true length is encoded, and the DiT is given zeros for the rest, not the encoder's rows.

pub mod clean;
pub mod tokenizer;

mod attention;
mod charsmap;
mod config;
mod encoder;
mod ffn;
mod gguf_vocabulary;
pub mod names;
mod relative_bias;
mod sentencepiece;

pub use config::Config;
pub use encoder::Umt5;
