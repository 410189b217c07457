use candle_core::{DType, Tensor};
use wan_core::{Error, Loader, Result};
use wan_ops::{Activation, Linear};

use crate::config::DitConfig;

/// From the text encoder's channels to the model's.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanModel.text_embedding.
#[derive(Debug)]
pub(crate) struct TextEmbedding {
    first: Linear,
    second: Linear,
    text_dim: usize,
    text_len: usize,
}

impl TextEmbedding {
    /// Takes `0` and `2`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&loader.pp("0"), config.text_dim, config.dim)?,
            second: Linear::load(&loader.pp("2"), config.dim, config.dim)?,
            text_dim: config.text_dim,
            text_len: config.text_len,
        })
    }

    /// - `text_embeds`: `[S, text_dim]` or `[1, S, text_dim]`, S of 1 to `text_len`
    /// - returns `[text_len, dim]` in `dtype`; rows past S are the embedding of a zero row, which is not zero
    ///
    /// Errors: [`Error::Shape`].
    pub(crate) fn forward(&self, text_embeds: &Tensor, dtype: DType) -> Result<Tensor> {
        let expected = || format!("[1, S, {}] with S of 1 to {}", self.text_dim, self.text_len);
        let rows = match *text_embeds.dims() {
            [s, d] | [1, s, d] if d == self.text_dim && (1..=self.text_len).contains(&s) => s,
            _ => return Err(Error::shape("text_embeds", text_embeds.dims(), expected())),
        };
        let x = text_embeds.reshape((rows, self.text_dim))?.to_dtype(dtype)?;
        let x = x.pad_with_zeros(0, 0, self.text_len - rows)?;
        self.second.forward(&self.first.forward_act(&x, Activation::GeluTanh)?)
    }
}
