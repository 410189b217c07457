use candle_core::{DType, Device, Tensor};
use wan_core::{Loader, Result};
use wan_ops::{AttentionChoice, Linear, Numerics, QkNorm, RowFormat, Rows, Sums, self_attention_of_products};

use crate::config::DitConfig;

/// Self-attention over all video tokens.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanSelfAttention.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm_q: Tensor,
    norm_k: Tensor,
    heads: usize,
    eps: f32,
    attention: AttentionChoice,
}

impl SelfAttention {
    /// Takes `q`, `k`, `v`, `o` and the weights of `norm_q`, `norm_k`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        let dim = config.dim;
        let linear = |name: &str| Linear::load(&loader.pp(name), dim, dim);
        Ok(Self {
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            o: linear("o")?,
            norm_q: loader.tensor("norm_q.weight", &[dim])?,
            norm_k: loader.tensor("norm_k.weight", &[dim])?,
            heads: config.num_heads,
            eps: config.eps,
            attention: AttentionChoice::default(),
        })
    }

    /// The same, computed as `numerics` says.
    pub(crate) fn with_numerics(self, numerics: Numerics) -> Self {
        let layer = |layer: Linear| layer.with_precision(numerics.precision);
        let attention = numerics.attention;
        Self { q: layer(self.q), k: layer(self.k), v: layer(self.v), o: layer(self.o), attention, ..self }
    }

    /// Its layers; query, key and value first.
    pub(crate) fn layers(&self) -> [&Linear; 4] {
        [&self.q, &self.k, &self.v, &self.o]
    }

    /// The format in which query, key and value take their rows, one for all three.
    pub(crate) fn row_format(&self, device: &Device, dtype: DType) -> RowFormat {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| layer.row_format(device, dtype));
        q.and(k).and(v)
    }

    /// - `x`: `[L, dim]` compute dtype, or in FP8
    /// - `rope`: `[L, D/2, 2]` f32
    /// - returns `[L, dim]` in the compute dtype; softmax and norms in f32
    pub(crate) fn forward(&self, x: Rows, rope: &Tensor) -> Result<Sums> {
        let (l, dim) = (x.count()?, self.q.outputs());
        let products = [self.q.forward_sums(&x)?, self.k.forward_sums(&x)?, self.v.forward_sums(&x)?];
        drop(x); // each is as large as the model's largest activations: none outlives its use
        let norm = QkNorm { query: &self.norm_q, key: &self.norm_k, eps: self.eps, rope };
        let scale = softmax_scale(dim / self.heads);
        let y = self_attention_of_products(products, self.heads, norm, scale, self.attention)?; // [L, heads, D]
        self.o.forward_sums(&Rows::Float(y.reshape((l, dim))?))
    }
}

/// `1 / sqrt(D)`.
pub(crate) fn softmax_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}
