//! A DiT's self-attention with the norms before it.

use candle_core::Tensor;
use wan_core::{Error, Result};

use super::self_attention;
use crate::{AttentionChoice, Sums, rms_norm_rope};

/// What happens to queries and keys before they meet.
#[derive(Debug, Clone, Copy)]
pub struct QkNorm<'a> {
    /// Weight of the queries' RMS norm, `[heads * D]` f32.
    pub query: &'a Tensor,
    /// Weight of the keys' RMS norm, `[heads * D]` f32.
    pub key: &'a Tensor,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Rotary positions, `[L, D/2, 2]` f32: (cos, sin), the same for all heads.
    pub rope: &'a Tensor,
}

/// Self-attention over the products that give queries, keys and values: [`rms_norm_rope`] of the first two, then
/// [`self_attention`].
///
/// - `q`, `k`, `v`: `[L, heads * D]`, all of one dtype
/// - returns `[L, heads, D]` in that dtype
///
/// 8-bit attention on a GPU takes the sums as they are: queries become 8-bit values in the pass that normalises them, and
/// what is left to apply to the values is applied where they are rounded.
///
/// Source: Wan2.1 `wan/modules/model.py`, `WanSelfAttention`.
///
/// Errors: [`Error::Shape`] and [`Error::Invalid`] for products that do not go together; those of the two ops.
pub fn self_attention_of_products(
    [q, k, v]: [Sums; 3],
    heads: usize,
    norm: QkNorm<'_>,
    scale: f32,
    choice: AttentionChoice,
) -> Result<Tensor> {
    let (l, dim) = q.bare().dims2()?;
    if heads == 0 || dim % heads != 0 {
        return Err(Error::shape("attention queries", q.bare().dims(), format!("[L, {heads} * D]")));
    }
    for (what, t) in [("attention keys", k.bare()), ("attention values", v.bare())] {
        if t.dims() != q.bare().dims() {
            return Err(Error::shape(what, t.dims(), format!("{:?} like the queries", q.bare().dims())));
        }
        if t.dtype() != q.dtype() {
            let expected = format!("{:?} like the queries", q.dtype());
            return Err(Error::invalid(what, format!("{:?}", t.dtype()), expected));
        }
    }
    let split = |t: Tensor| t.reshape((l, heads, dim / heads));
    let k = split(rms_norm_rope(k, norm.key, norm.eps, norm.rope)?)?;
    // What the other ways check as they compute.
    let expected = [(norm.query.dims(), vec![dim]), (norm.rope.dims(), vec![l, dim / heads / 2, 2])];
    for ((found, expected), what) in expected.iter().zip(["weight of the queries' norm", "rope"]) {
        if found != expected {
            return Err(Error::shape(what, found, format!("{expected:?}")));
        }
    }
    #[cfg(feature = "cuda")]
    if choice == AttentionChoice::Sage
        && let Some(y) = super::cuda::sage_of_products(&q, &k, &v, norm, scale)?
    {
        return Ok(y);
    }
    let q = split(rms_norm_rope(q, norm.query, norm.eps, norm.rope)?)?;
    let v = split(v.finish()?)?;
    self_attention(&q, &k, &v, scale, choice)
}
