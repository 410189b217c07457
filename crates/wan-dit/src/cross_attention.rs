use std::iter;

use candle_core::{DType, Device, Tensor};
use wan_core::{Loader, Result};
use wan_ops::{Linear, Precision, RowFormat, Rows, Sums, attention, attention_sum, rms_norm};

use crate::config::{DitConfig, ModelType};
use crate::context::{BlockKeys, KeyValue};
use crate::self_attention::softmax_scale;

/// Cross-attention from the video tokens to the text and, for i2v, to the image: one query, two softmaxes, one
/// output projection. No position embedding.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanT2VCrossAttention and WanI2VCrossAttention.
#[derive(Debug)]
pub(crate) struct CrossAttention {
    q: Linear,
    o: Linear,
    norm_q: Tensor,
    text: KeyValueProjection,
    image: Option<KeyValueProjection>,
    heads: usize,
    eps: f32,
}

/// Linears and norm that give the keys and values of one source.
#[derive(Debug)]
struct KeyValueProjection {
    k: Linear,
    v: Linear,
    norm_k: Tensor,
}

impl CrossAttention {
    /// Takes `q`, `k`, `v`, `o`, `norm_q`, `norm_k` and, for i2v, `k_img`, `v_img`, `norm_k_img`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        let dim = config.dim;
        let linear = |name: &str| Linear::load(&loader.pp(name), dim, dim);
        let keys = |suffix: &str| -> Result<KeyValueProjection> {
            Ok(KeyValueProjection {
                k: linear(&format!("k{suffix}"))?,
                v: linear(&format!("v{suffix}"))?,
                norm_k: loader.tensor(&format!("norm_k{suffix}.weight"), &[dim])?,
            })
        };
        Ok(Self {
            q: linear("q")?,
            o: linear("o")?,
            norm_q: loader.tensor("norm_q.weight", &[dim])?,
            text: keys("")?,
            image: match config.model_type {
                ModelType::I2v => Some(keys("_img")?),
                ModelType::T2v => None,
            },
            heads: config.num_heads,
            eps: config.eps,
        })
    }

    /// The same, multiplied as `precision` says; keys and values, made once, stay exact.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { q: self.q.with_precision(precision), o: self.o.with_precision(precision), ..self }
    }

    /// The layers that every forward uses.
    pub(crate) fn layers(&self) -> [&Linear; 2] {
        [&self.q, &self.o]
    }

    /// The layers that make keys and values, which are used once where those are kept.
    fn key_layers(&self) -> impl Iterator<Item = &Linear> {
        iter::once(&self.text).chain(&self.image).flat_map(|projection| [&projection.k, &projection.v])
    }

    /// Takes the weights that make keys and values from the device, until they are used again.
    pub(crate) fn release_key_weights(&self) {
        self.key_layers().for_each(Linear::release);
    }

    /// Keys and values of the embedded text, `[text_len, dim]`.
    pub(crate) fn text_keys(&self, text: &Tensor) -> Result<KeyValue> {
        self.keys(&self.text, text)
    }

    /// Keys and values of the embedded image, `[N, dim]`, if the model looks at one.
    pub(crate) fn image_keys(&self, image: Option<&Tensor>) -> Result<Option<KeyValue>> {
        self.image.as_ref().zip(image).map(|(projection, image)| self.keys(projection, image)).transpose()
    }

    fn keys(&self, projection: &KeyValueProjection, tokens: &Tensor) -> Result<KeyValue> {
        let (s, dim) = tokens.dims2()?;
        let split = |t: Tensor| t.reshape((s, self.heads, dim / self.heads));
        Ok(KeyValue {
            k: split(rms_norm(&projection.k.forward(tokens)?, &projection.norm_k, self.eps)?)?,
            v: split(projection.v.forward(tokens)?)?,
        })
    }

    /// The format in which the query takes its rows.
    pub(crate) fn row_format(&self, device: &Device, dtype: DType) -> RowFormat {
        self.q.row_format(device, dtype)
    }

    /// - `x`: `[L, dim]` compute dtype, or in FP8
    /// - returns `[L, dim]` in the compute dtype; softmaxes and norm in f32
    pub(crate) fn forward(&self, x: Rows, keys: &BlockKeys) -> Result<Sums> {
        let (l, dim) = (x.count()?, self.q.outputs());
        let d = dim / self.heads;
        let q = rms_norm(self.q.forward_sums(&x)?, &self.norm_q, self.eps)?.reshape((l, self.heads, d))?;
        drop(x);
        let scale = softmax_scale(d);
        let (k, v) = (&keys.text.k, &keys.text.v);
        let y = match &keys.image {
            Some(image) => attention_sum(&q, (k, v), (&image.k, &image.v), scale)?,
            None => attention(&q, k, v, scale, None)?,
        }; // [L, heads, D]
        drop(q);
        self.o.forward_sums(&Rows::Float(y.reshape((l, dim))?))
    }
}
