use candle_core::{D, DType, Tensor};
use wan_core::{Error, Result};

/// Multi-head attention, not causal: `softmax(scale q kᵀ + bias) v` for each head.
///
/// - `q`: `[L, heads, D]`; `k`, `v`: `[S, heads, D]`, all of one dtype
/// - `bias`: `[heads, L, S]` f32, added to the scaled scores (UMT5's relative positions)
/// - returns `[L, heads, D]`; softmax and sums in f32, memory linear in `L` and `S`
///
/// Errors: [`Error::Shape`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, bias: Option<&Tensor>) -> Result<Tensor> {
    let (l, heads, d) = q.dims3()?;
    let (s, _, _) = k.dims3()?;
    for (what, t) in [("attention keys", k), ("attention values", v)] {
        if t.dims() != [s, heads, d] {
            return Err(Error::shape(what, t.dims(), format!("[{s}, {heads}, {d}]")));
        }
    }
    if let Some(bias) = bias
        && bias.dims() != [heads, l, s]
    {
        return Err(Error::shape("attention bias", bias.dims(), format!("[{heads}, {l}, {s}]")));
    }
    attention_reference(q, k, v, scale, bias)
}

/// [`attention`] in plain tensor operations; holds all scores at once.
pub fn attention_reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let heads_first = |t: &Tensor| t.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous();
    let (qh, kh, vh) = (heads_first(q)?, heads_first(k)?, heads_first(v)?); // [heads, L or S, D]
    let mut scores = (qh.matmul(&kh.t()?)? * f64::from(scale))?; // [heads, L, S]
    if let Some(bias) = bias {
        scores = (scores + bias)?;
    }
    let max = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&max)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    Ok(weights.matmul(&vh)?.transpose(0, 1)?.contiguous()?.to_dtype(q.dtype())?) // [L, heads, D]
}
