//! What the user trades for speed.

use std::fmt;
use std::str::FromStr;

use wan_core::{Error, Result};

/// How products are computed, decided once for a job and given to the layers that ask for it when a model is opened.
/// It changes nothing on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numerics {
    /// Matrix products with FP8 weights.
    pub precision: Precision,
    /// Self-attention.
    pub attention: AttentionChoice,
}

impl Numerics {
    /// The fastest choices.
    pub const FAST: Self = Self { precision: Precision::Fp8, attention: AttentionChoice::Sage };
}

/// Matrix products with FP8 weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// The weight is widened to the activations' format at each use.
    #[default]
    Bf16,
    /// Activations are rounded to FP8, each row with its own scale, and multiplied in FP8, where the GPU can.
    Fp8,
}

/// Self-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionChoice {
    /// The fastest one that multiplies in the activations' format.
    #[default]
    Auto,
    /// The program's own kernel in the activations' format.
    Exact,
    /// cuDNN's fused attention.
    Cudnn,
    /// 8-bit: q and k in int8, the weights and v in FP8, or in 16 bits on GPUs without FP8 (SageAttention 2, arXiv
    /// 2411.10958).
    Sage,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "bf16" => Ok(Self::Bf16),
            "fp8" => Ok(Self::Fp8),
            _ => Err(Error::invalid("precision", format!("`{s}`"), "bf16 or fp8")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        })
    }
}

impl FromStr for AttentionChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "exact" => Ok(Self::Exact),
            "cudnn" => Ok(Self::Cudnn),
            "sage" => Ok(Self::Sage),
            _ => Err(Error::invalid("attention", format!("`{s}`"), "auto, exact, cudnn or sage")),
        }
    }
}

impl fmt::Display for AttentionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Exact => "exact",
            Self::Cudnn => "cudnn",
            Self::Sage => "sage",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for precision in [Precision::Bf16, Precision::Fp8] {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        use AttentionChoice::{Auto, Cudnn, Exact, Sage};
        for attention in [Auto, Exact, Cudnn, Sage] {
            assert_eq!(attention.to_string().parse::<AttentionChoice>().unwrap(), attention);
        }
        assert!("f8".parse::<Precision>().is_err() && "flash".parse::<AttentionChoice>().is_err());
    }
}
