use candle_core::Tensor;
use wan_core::Result;

/// Elementwise function applied at the end of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`: UMT5's gate, the DiT's feed-forward and text embedding.
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt(2)))`: CLIP and the DiT's image embedding.
    GeluErf,
    /// `x / (1 + exp(-x))`: the VAE and the DiT's time embedding.
    Silu,
}

/// Applies `activation` to every value of `x`, any shape; dtype kept.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Identity => x.clone(),
        Activation::GeluTanh => x.gelu()?,
        Activation::GeluErf => x.gelu_erf()?,
        Activation::Silu => x.silu()?,
    })
}
