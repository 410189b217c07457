//! Standard normal noise equal, bit for bit, to torch's CPU generator on x86 machines with AVX2.
//!
//! A seed then gives the latents that users of the reference know. Source: PyTorch
//! `aten/src/ATen/core/MT19937RNGEngine.h` and `aten/src/ATen/native/cpu/DistributionTemplates.h`
//! (`normal_fill`), with the vector logarithm, sine and cosine of its AVX2 math header, which are
//! Cephes polynomials. All arithmetic here is IEEE f32 with explicit fused multiply-adds, so the
//! values do not depend on the machine.

use candle_core::{Device, Shape, Tensor};
use serde::{Deserialize, Serialize};

use crate::mt19937::{Mt19937, STATE_WORDS};
use crate::{Result, SamplerError};

/// Values that one Box-Muller block makes: eight cosines, then eight sines.
const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// torch's CPU random generator, as far as `torch.randn` in f32 goes.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchRng {
    engine: Mt19937,
    /// Second value of the last f64 Box-Muller pair; only draws of fewer than 16 values use it.
    next_normal: Option<f64>,
}

/// A saved [`TorchRng`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// The 624 words of MT19937.
    pub words: Vec<u32>,
    /// Index of the next word, 0 to 624.
    pub next: usize,
    /// Bits of the cached f64 normal value, if there is one. As an integer, so that any text format
    /// keeps it exactly.
    pub next_normal_bits: Option<u64>,
}

impl TorchRng {
    /// `torch.Generator().manual_seed(seed)`. Only the low 32 bits of the seed matter, as in torch.
    pub fn seed(seed: u64) -> Self {
        Self { engine: Mt19937::seed(seed as u32), next_normal: None }
    }

    /// `torch.randn(n)`: `n` standard normal f32 values.
    ///
    /// The values depend on `n`, not on the shape they are given later. From 16 values on they come
    /// in blocks of 16; where `n` is no multiple of 16 a fresh block overwrites the last 16 values.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal_f64() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| self.uniform_f32());
            box_muller(tail);
        }
        values
    }

    /// `torch.randn(shape)` on the CPU, then moved to `device`: f32 of `shape`.
    ///
    /// Errors: allocation on the device.
    pub fn randn_tensor(&mut self, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values = self.randn(shape.elem_count());
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    /// `torch.randperm(n)`: 0 to `n - 1` in random order. `n` below 214 million, from where on torch draws otherwise.
    ///
    /// Source: PyTorch `aten/src/ATen/native/TensorFactories.cpp`, `randperm_cpu`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            let other = i + self.engine.next_u32() as usize % (n - i);
            order.swap(i, other);
        }
        order
    }

    /// Everything that later draws depend on.
    pub fn state(&self) -> RngState {
        let (words, next) = self.engine.parts();
        RngState { words: words.to_vec(), next, next_normal_bits: self.next_normal.map(f64::to_bits) }
    }

    /// The generator that [`Self::state`] was taken from.
    ///
    /// Errors: not 624 words, or an index above 624.
    pub fn from_state(state: &RngState) -> Result<Self> {
        let engine = Mt19937::from_parts(&state.words, state.next).ok_or_else(|| SamplerError::RngState {
            detail: format!(
                "found {} words and next index {}, expected {STATE_WORDS} words and an index of \
                     at most {STATE_WORDS}",
                state.words.len(),
                state.next
            ),
        })?;
        Ok(Self { engine, next_normal: state.next_normal_bits.map(f64::from_bits) })
    }

    /// Uniform in [0, 1) from the low 24 bits of one word.
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [0, 1) from the low 53 bits of two words.
    fn uniform_f64(&mut self) -> f64 {
        (self.engine.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// The generator's path for short draws: Box-Muller in f64, two values per pair of uniforms.
    fn normal_f64(&mut self) -> f64 {
        if let Some(value) = self.next_normal.take() {
            return value;
        }
        let turn = self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * turn;
        self.next_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Sixteen uniforms in, sixteen standard normals out: pair j is (j, j + 8).
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(HALF);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(2.0 * std::f32::consts::PI * *b);
        // The sum with the mean, 0, turns a negative zero into a positive one.
        *a = radius * cos + 0.0;
        *b = radius * sin + 0.0;
    }
}

/// Natural logarithm of a positive normal f32: Cephes `logf` with fused multiply-adds.
fn ln(x: f32) -> f32 {
    const SQRT_HALF: f32 = 0.707_106_77;
    const LN2_HIGH: f32 = 0.693_359_4; // 355 / 512
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TAIL: [f32; 8] = [
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // x = m 2^e with m in [0.5, 1)
    let bits = x.to_bits();
    let mut e = ((bits >> 23) as i32 - 126) as f32;
    let mut m = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    if m < SQRT_HALF {
        e -= 1.0;
        m = (m - 1.0) + m;
    } else {
        m -= 1.0;
    }
    let z = m * m;
    let y = TAIL.iter().fold(7.037_683_6e-2_f32, |y, &c| y.mul_add(m, c)) * m;
    let y = y.mul_add(z, e * LN2_LOW);
    let y = (-z).mul_add(0.5, y);
    e.mul_add(LN2_HIGH, m + y)
}

/// Sine and cosine of an angle in [0, 2 pi]: Cephes `sinf` and `cosf` with fused multiply-adds.
fn sin_cos(angle: f32) -> (f32, f32) {
    const FOUR_OVER_PI: f32 = 1.273_239_5;
    // Octant, rounded up to an even number, so that the remainder lies in [-pi/4, pi/4].
    let octant = ((angle * FOUR_OVER_PI) as i32 + 1) & !1;
    let q = octant as f32;
    // pi/4 in three parts, the first two exact products
    let x = q.mul_add(-0.785_156_25, angle);
    let x = q.mul_add(-2.418_756_5e-4, x);
    let x = q.mul_add(-3.774_895e-8, x);
    let z = x * x;

    let c = 2.443_315_7e-5_f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2) * z;
    let c = c.mul_add(z, -(z * 0.5)) + 1.0;
    let s = (-1.951_529_6e-4_f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1) * z;
    let s = s.mul_add(x, x);

    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let sin = if octant & 4 != 0 { -sin } else { sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
