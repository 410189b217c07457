//! Softmax attention over heads.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
pub use reference::attention_reference;
use wan_core::{Error, Result};

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
    let (l, heads, d) = q.dims3()?;
    let (s, _, _) = k.dims3()?;
    for (what, t) in [("attention keys", k), ("attention values", v)] {
        if t.dims() != [s, heads, d] {
            return Err(Error::shape(what, t.dims(), format!("[{s}, {heads}, {d}]")));
        }
    }
    if s == 0 {
        return Err(Error::invalid("attention keys", "none", "at least one"));
    }
    if let Some(bias) = bias
        && bias.dims() != [heads, l, s]
    {
        return Err(Error::shape("attention bias", bias.dims(), format!("[{heads}, {l}, {s}]")));
    }
    Ok(q.apply_op3_no_bwd(k, v, &Attention { scale, bias })?)
}

struct Attention<'a> {
    scale: f32,
    bias: Option<&'a Tensor>,
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
}
