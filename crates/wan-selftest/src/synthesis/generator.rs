//! Normal values at any index of any tensor, without those before it: Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3" (SC 2011), with the finaliser of SplitMix64 as the mixing function.

use std::sync::OnceLock;

use candle_core::DType;
use float8::F8E4M3;
use half::{bf16, f16};
use wan_core::{Error, Result};

/// Values that one draw of 64 bits gives.
const PER_DRAW: usize = 4;
/// Entries of the tables: 16 bits choose one.
const ENTRIES: usize = 1 << 16;

/// The random numbers of one tensor.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

impl Stream {
    /// Those of the tensor `name` under `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, byte| {
            (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(hash ^ mix(seed)))
    }

    /// 64 bits; the same for the same index, whoever asks.
    pub fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The quantiles `(i + 0.5) / 65536` of the standard normal distribution, by summing up its density.
pub fn quantiles() -> &'static [f32] {
    static QUANTILES: OnceLock<Vec<f32>> = OnceLock::new();
    QUANTILES.get_or_init(|| {
        const STEP: f64 = 1.0 / 32768.0;
        let mut upper = Vec::with_capacity(ENTRIES / 2);
        let (mut x, mut below) = (0f64, 0.5f64);
        while upper.len() < ENTRIES / 2 {
            let wanted = 0.5 + (upper.len() as f64 + 0.5) / ENTRIES as f64;
            while below < wanted {
                let middle = x + STEP / 2.0;
                below += STEP * (-middle * middle / 2.0).exp() / std::f64::consts::TAU.sqrt();
                x += STEP;
            }
            upper.push(x as f32);
        }
        let lower = upper.iter().rev().map(|x| -x);
        lower.chain(upper.iter().copied()).collect()
    })
}

/// The quantiles of N(mean, deviation²), encoded in a dtype.
pub enum Table {
    /// One byte each.
    E4m3(Vec<u8>),
    /// bf16 or f16.
    Half(Vec<u16>),
    /// f32.
    F32(Vec<u32>),
}

impl Table {
    /// Errors: [`Error::Invalid`] for another dtype than f32, f16, bf16 and f8_e4m3.
    pub fn new(dtype: DType, mean: f32, deviation: f32) -> Result<Self> {
        let values = || quantiles().iter().map(move |q| mean + deviation * q);
        Ok(match dtype {
            DType::F8E4M3 => Self::E4m3(values().map(|v| F8E4M3::from_f32(v).to_bits()).collect()),
            DType::BF16 => Self::Half(values().map(|v| bf16::from_f32(v).to_bits()).collect()),
            DType::F16 => Self::Half(values().map(|v| f16::from_f32(v).to_bits()).collect()),
            DType::F32 => Self::F32(values().map(f32::to_bits).collect()),
            other => {
                return Err(Error::invalid(
                    "dtype of a synthetic tensor",
                    other.as_str(),
                    "f32, f16, bf16 or f8_e4m3",
                ));
            }
        })
    }

    /// Writes the values of `stream` from the draw `first` on, little-endian; four values to a draw.
    pub fn fill(&self, stream: Stream, first: u64, out: &mut [u8]) {
        match self {
            Self::E4m3(table) => fill(stream, first, out, |i| [table[i]]),
            Self::Half(table) => fill(stream, first, out, |i| table[i].to_le_bytes()),
            Self::F32(table) => fill(stream, first, out, |i| table[i].to_le_bytes()),
        }
    }
}

fn fill<const N: usize>(stream: Stream, first: u64, out: &mut [u8], value: impl Fn(usize) -> [u8; N]) {
    for (draw, values) in (first..).zip(out.chunks_mut(N * PER_DRAW)) {
        let mut bits = stream.bits(draw);
        for bytes in values.chunks_exact_mut(N) {
            bytes.copy_from_slice(&value((bits & 0xffff) as usize));
            bits >>= 16;
        }
    }
}

/// Draws that a row of `values` values takes.
pub fn draws(values: usize) -> u64 {
    values.div_ceil(PER_DRAW) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(count: usize, seed: u64) -> Vec<f64> {
        let mut bytes = vec![0; 4 * count];
        let table = Table::new(DType::F32, 0.0, 1.0).unwrap();
        table.fill(Stream::new(seed, "w"), 0, &mut bytes);
        bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    }

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        let q = quantiles();
        assert_eq!(q.len(), ENTRIES);
        assert!(q.windows(2).all(|w| w[0] <= w[1]));
        // Φ(1) = 0.841345, Φ(-2) = 0.022750, Φ(4) = 0.9999683.
        for (x, below) in [(1.0, 0.841_345), (-2.0, 0.022_750), (4.0, 0.999_968_3)] {
            let found = q.partition_point(|v| *v < x) as f64 / ENTRIES as f64;
            assert!((found - below).abs() < 3e-5, "{found} below {x}");
        }
    }

    #[test]
    fn values_are_normal_and_independent() {
        let values = normal(1 << 18, 1);
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
        let neighbours = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
        let fourth = values.iter().map(|v| v.powi(4)).sum::<f64>() / n;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!(neighbours.abs() < 0.01 && (fourth - 3.0).abs() < 0.1, "{neighbours} {fourth}");
        let other = normal(1 << 18, 2);
        let shared = values.iter().zip(&other).map(|(a, b)| a * b).sum::<f64>() / n;
        assert!(shared.abs() < 0.01, "{shared}");
    }

    #[test]
    fn any_part_is_that_of_the_whole() {
        let table = Table::new(DType::BF16, 0.5, 2.0).unwrap();
        let stream = Stream::new(7, "blocks.0.ffn.0.weight");
        let mut whole = [0u8; 64];
        table.fill(stream, 0, &mut whole);
        let mut part = [0u8; 22];
        table.fill(stream, 3, &mut part);
        assert_eq!(part, whole[24..46]);
    }
}
