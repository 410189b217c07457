//! Stored floats as f32.

use candle_core::DType;

/// Whether [`widen`] can read the dtype.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::F8E4M3)
}

/// Widens little-endian floats to f32; exact for every dtype but f64, which rounds.
///
/// `bytes` may be unaligned and must hold exactly `out.len()` values.
///
/// # Panics
/// For a dtype other than f32, f64, bf16, f16 and f8_e4m3: the [`Loader`](super::Loader) admits no other.
pub fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.size_in_bytes(), "bytes and values differ in number");
    match dtype {
        DType::F32 => each::<4>(bytes, out, f32::from_le_bytes),
        DType::F64 => each::<8>(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::BF16 => each::<2>(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        DType::F16 => each::<2>(bytes, out, |b| widen_f16(u16::from_le_bytes(b))),
        DType::F8E4M3 => each::<1>(bytes, out, |[b]| F8_E4M3[b as usize]),
        other => panic!("{other:?} is not a floating-point weight dtype"),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    let (chunks, _) = bytes.as_chunks::<N>();
    for (o, c) in out.iter_mut().zip(chunks) {
        *o = read(*c);
    }
}

/// An f16 code as f32, without branches or subnormal arithmetic, so that loops over it become vector code.
#[inline]
fn widen_f16(code: u16) -> f32 {
    let magnitude = u32::from(code & 0x7fff);
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    let subnormal = (magnitude as i32 as f32 * (1.0 / (1 << 24) as f32)).to_bits();
    let special = (magnitude << 13) | 0x7f80_0000; // infinity and NaN
    let bits = if magnitude < 0x0400 { subnormal } else { normal };
    let bits = if magnitude >= 0x7c00 { special } else { bits };
    f32::from_bits(bits | u32::from(code & 0x8000) << 16)
}

/// Every f8_e4m3fn value: 1 sign bit, 4 exponent bits (bias 7), 3 mantissa bits, no infinity, NaN at 0x7f and 0xff.
static F8_E4M3: [f32; 256] = {
    let mut table = [0f32; 256];
    let mut code = 0;
    while code < 256 {
        let exponent = ((code >> 3) & 15) as u32;
        let mantissa = (code & 7) as u32;
        let magnitude = if exponent == 15 && mantissa == 7 {
            f32::NAN
        } else if exponent == 0 {
            mantissa as f32 / 512.0
        } else {
            f32::from_bits(((exponent + 127 - 7) << 23) | (mantissa << 20))
        };
        table[code] = if code >= 128 { -magnitude } else { magnitude };
        code += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn f8_table_has_the_formats_landmarks() {
        let at = |code: usize| F8_E4M3[code];
        assert_eq!(at(0x00), 0.0);
        assert_eq!(at(0x01), 2f32.powi(-9)); // smallest subnormal
        assert_eq!(at(0x08), 2f32.powi(-6)); // smallest normal
        assert_eq!(at(0x38), 1.0);
        assert_eq!(at(0x7e), 448.0); // largest
        assert_eq!(at(0xb8), -1.0);
        assert!(at(0x7f).is_nan() && at(0xff).is_nan());
    }

    #[test]
    fn every_f16_widens_exactly() {
        for code in 0..=u16::MAX {
            let (found, want) = (widen_f16(code), f16::from_bits(code).to_f32());
            assert!(found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan()), "{code:#x}");
        }
    }

    #[test]
    fn widening_reads_unaligned_bytes() {
        let mut bytes = vec![0u8];
        bytes.extend([1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()));
        let mut out = [0f32; 2];
        widen(DType::F32, &bytes[1..], &mut out);
        assert_eq!(out, [1.5, -2.0]);
        let halves: Vec<u8> = [0.5f32, 3.0].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        widen(DType::BF16, &halves, &mut out);
        assert_eq!(out, [0.5, 3.0]);
    }
}
