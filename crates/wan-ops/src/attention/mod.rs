//! Softmax attention over heads.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod of_products;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
#[cfg(feature = "cuda")]
pub(crate) use cuda::{cudnn_by_default, sage_kernel};
pub use of_products::{QkNorm, self_attention_of_products};
pub use reference::attention_reference;
use wan_core::{Error, Result};

use crate::AttentionChoice;

/// Multi-head attention, not causal: `softmax(scale q kᵀ + bias) v` for each head.
///
/// - `q`: `[L, heads, D]`; `k`, `v`: `[S, heads, D]`, all of one dtype
/// - `bias`: `[heads, L, S]` f32, added to the scaled scores (UMT5's relative positions)
/// - returns `[L, heads, D]`; softmax and sums in f32, memory linear in `L` and `S`
///
/// Source: Dao et al., FlashAttention (2022): blocks of keys with a running maximum and sum for each query.
///
/// Errors: [`Error::Shape`]; [`Error::Invalid`] without keys.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, bias: Option<&Tensor>) -> Result<Tensor> {
    check(q, k, v)?;
    let ((l, heads, _), s) = (q.dims3()?, k.dim(0)?);
    if let Some(bias) = bias
        && bias.dims() != [heads, l, s]
    {
        return Err(Error::shape("attention bias", bias.dims(), format!("[{heads}, {l}, {s}]")));
    }
    Ok(q.apply_op3_no_bwd(k, v, &Attention { scale, bias, choice: AttentionChoice::Auto })?)
}

/// As [`attention`] without a bias, on a GPU by the kernel of the user's choice: for the DiT's self-attention, where
/// nearly all of the time goes. `Sage` needs 16-bit inputs and heads of 128 channels, and is exact without them.
///
/// Errors: those of [`attention`]; that of cuDNN where it is asked for and cannot be used.
pub fn self_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    choice: AttentionChoice,
) -> Result<Tensor> {
    check(q, k, v)?;
    Ok(q.apply_op3_no_bwd(k, v, &Attention { scale, bias: None, choice })?)
}

/// The sum of two attentions of one query, each with a softmax of its own: the DiT's cross-attention to text and
/// image. `first` and `second`: keys and values as in [`attention`].
///
/// Errors: those of [`attention`].
pub fn attention_sum(
    q: &Tensor,
    first: (&Tensor, &Tensor),
    second: (&Tensor, &Tensor),
    scale: f32,
) -> Result<Tensor> {
    check(q, first.0, first.1)?;
    check(q, second.0, second.1)?;
    match q.device() {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(_) => {
            let op = Attention { scale, bias: None, choice: AttentionChoice::Auto };
            Ok(cuda::attention_sum(&op, q, first, second)?)
        }
        _ => {
            let attend = |(k, v): (&Tensor, &Tensor)| attention(q, k, v, scale, None);
            Ok((attend(first)? + attend(second)?)?)
        }
    }
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
    let (_, heads, d) = q.dims3()?;
    let (s, _, _) = k.dims3()?;
    for (what, t) in [("attention keys", k), ("attention values", v)] {
        if t.dims() != [s, heads, d] {
            return Err(Error::shape(what, t.dims(), format!("[{s}, {heads}, {d}]")));
        }
        if t.dtype() != q.dtype() {
            return Err(Error::invalid(
                what,
                format!("{:?}", t.dtype()),
                format!("{:?} like the query", q.dtype()),
            ));
        }
    }
    if s == 0 {
        return Err(Error::invalid("attention keys", "none", "at least one"));
    }
    Ok(())
}

struct Attention<'a> {
    scale: f32,
    bias: Option<&'a Tensor>,
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is one half on the CPU"))]
    choice: AttentionChoice,
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::forward(self, (q, q_layout), (k, k_layout), (v, v_layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &candle_core::CudaStorage,
        q_layout: &Layout,
        k: &candle_core::CudaStorage,
        k_layout: &Layout,
        v: &candle_core::CudaStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::forward(self, (q, q_layout), (k, k_layout), (v, v_layout))
    }
}
