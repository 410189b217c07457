use candle_core::{D, DType, Tensor};
use wan_core::Result;

/// [`attention`](super::attention) in plain tensor operations; holds all scores at once.
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
