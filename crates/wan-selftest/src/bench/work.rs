use wan_dit::DitConfig;

/// Floating-point operations of one denoising step, a multiply-add counting two: those of the matrix products in the
/// blocks, and of attention. All else is below one part in a thousand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepWork {
    /// Products with weights.
    pub products: f64,
    /// Self-attention.
    pub self_attention: f64,
    /// Cross-attention.
    pub cross_attention: f64,
}

impl StepWork {
    /// That of `tokens` tokens under `contexts` contexts, whose keys are computed beforehand. The first block's
    /// self-attention does not depend on the context and is computed once.
    pub fn of(config: &DitConfig, tokens: usize, contexts: usize) -> Self {
        let [s, d, ffn] = [tokens, config.dim, config.ffn_dim].map(|n| n as f64);
        let keys = (config.text_len + config.image_dim.map_or(0, |_| IMAGE_TOKENS)) as f64;
        let (blocks, contexts) = (config.num_layers as f64, contexts as f64);
        // How often the first part of a block, and the rest of it, are computed.
        let (first, rest) = (blocks * contexts - (contexts - 1.0), blocks * contexts);
        Self {
            products: first * 8.0 * s * d * d + rest * (4.0 * s * d * d + 4.0 * s * d * ffn),
            self_attention: first * 4.0 * s * s * d,
            cross_attention: rest * 4.0 * s * keys * d,
        }
    }

    /// Sum.
    pub fn flops(&self) -> f64 {
        self.products + self.self_attention + self.cross_attention
    }
}

/// Tokens of the image encoder.
const IMAGE_TOKENS: usize = 257;

#[cfg(test)]
mod tests {
    use super::*;

    /// Per forward and block at 32,760 tokens: q, k, v 5.15, other matrices of the model's width 1.72 each, the
    /// feed-forward's 4.64 each, self-attention 21.98, cross-attention 0.52 TFLOP.
    #[test]
    fn the_14b_model() {
        let config = DitConfig::I2V_14B;
        let one = StepWork::of(&config, 32760, 1);
        let block = 5.153e12 + 3.0 * 1.7177e12 + 2.0 * 4.6377e12;
        assert!((one.products / (40.0 * block) - 1.0).abs() < 1e-3, "{}", one.products);
        assert!((one.self_attention / 879.2e12 - 1.0).abs() < 1e-3);
        assert!((one.cross_attention / 20.6e12 - 1.0).abs() < 3e-3);
        // With guidance the first block's self-attention is shared.
        let two = StepWork::of(&config, 32760, 2);
        assert!((two.self_attention / one.self_attention - 79.0 / 40.0).abs() < 1e-12);
        assert!((two.cross_attention / one.cross_attention - 2.0).abs() < 1e-12);
    }
}
