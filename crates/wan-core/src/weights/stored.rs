use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// A shared, immutable byte range: part of a mapped file, or of the program itself.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Self { owner: Arc::new(owner), range }
    }

    /// The part `range` of these bytes; `range` must lie inside.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.range.len(),
            "slice {range:?} of {}",
            self.range.len()
        );
        let start = self.range.start;
        Self { owner: self.owner.clone(), range: start + range.start..start + range.end }
    }

    /// The bytes. They may be unaligned for the type they hold: safetensors aligns nothing.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

/// One tensor as stored: little-endian, row-major, in its own dtype.
#[derive(Clone)]
pub struct Stored {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Stored {
    /// A tensor over `bytes`, which must hold exactly `shape` values of `dtype`.
    ///
    /// Errors: [`Error::Invalid`] where the length does not fit.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let name = name.into();
        let want = shape.iter().product::<usize>() * dtype.size_in_bytes();
        let found = bytes.as_slice().len();
        if found != want {
            return Err(Error::invalid(
                format!("tensor {name}"),
                format!("{found} bytes"),
                format!("{want} bytes"),
            ));
        }
        Ok(Self { name, dtype, shape, bytes })
    }

    /// A stand-in of the right shape and no data, for a tensor whose absence was already recorded.
    pub(super) fn placeholder(name: String, shape: &[usize]) -> Self {
        Self { name, dtype: DType::F32, shape: shape.to_vec(), bytes: Bytes::new([]) }
    }

    /// A contiguous CPU tensor as stored bytes: for tests and for weights made in memory.
    pub fn from_tensor(name: impl Into<String>, tensor: &Tensor) -> Result<Self> {
        let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, DType::F32, tensor.dims().to_vec(), Bytes::new(bytes))
    }

    /// Name in the file it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stored dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The stored bytes, possibly unaligned.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The same values under another shape of as many elements.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.elements() {
            return Err(Error::shape(format!("tensor {}", self.name), &self.shape, format!("{shape:?}")));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// Part `index` of `parts` equal parts along the first axis, without copying.
    pub fn rows(&self, index: usize, parts: usize) -> Result<Self> {
        let rows = self.shape.first().copied().unwrap_or(0);
        if parts == 0 || rows % parts != 0 || index >= parts {
            return Err(Error::shape(
                format!("tensor {}", self.name),
                &self.shape,
                format!("a first axis that splits into {parts} equal parts"),
            ));
        }
        let bytes = self.bytes().len() / parts;
        let mut shape = self.shape.clone();
        shape[0] = rows / parts;
        Ok(Self {
            name: self.name.clone(),
            dtype: self.dtype,
            shape,
            bytes: self.bytes.slice(index * bytes..(index + 1) * bytes),
        })
    }

    /// The values `range` (flat, row-major) widened to f32.
    pub fn widen_range(&self, range: Range<usize>, out: &mut [f32]) {
        let size = self.dtype.size_in_bytes();
        widen(self.dtype, &self.bytes()[range.start * size..range.end * size], out);
    }

    /// All values as f32.
    ///
    /// Errors: [`Error::Invalid`] for a dtype that is not one of [`widen`]'s.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        if !is_float(self.dtype) {
            return Err(Error::invalid(
                format!("tensor {}", self.name),
                format!("dtype {:?}", self.dtype),
                "f32, f64, bf16, f16 or f8_e4m3",
            ));
        }
        let mut out = vec![0f32; self.elements()];
        widen(self.dtype, self.bytes(), &mut out);
        Ok(out)
    }

    /// The tensor widened to f32 on `device`, shape kept.
    pub fn to_f32_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.to_f32_vec()?, self.shape.as_slice(), device)?)
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({}, {:?}, {:?})", self.name, self.dtype, self.shape)
    }
}

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

    #[test]
    fn rows_are_views() {
        let t = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((6, 2)).unwrap();
        let stored = Stored::from_tensor("qkv", &t).unwrap();
        let k = stored.rows(1, 3).unwrap();
        assert_eq!(k.shape(), [2, 2]);
        assert_eq!(k.to_f32_vec().unwrap(), [4.0, 5.0, 6.0, 7.0]);
        assert!(stored.rows(0, 4).is_err());
    }
}
