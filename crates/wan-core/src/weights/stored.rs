use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::scale::{Scale, may_scale};
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
    encoding: Encoding,
}

/// How the stored bytes become values.
#[derive(Clone)]
enum Encoding {
    /// They are the values, in the tensor's dtype.
    Plain,
    /// They are values to be multiplied.
    Scaled(Scale),
    /// GGUF's Q8_0: an f16 factor, then 32 signed bytes.
    Q8_0,
}

/// Values of a Q8_0 block.
pub(super) const Q8_0_VALUES: usize = 32;
/// Bytes of a Q8_0 block.
pub(super) const Q8_0_BYTES: usize = 34;

impl Stored {
    /// A tensor over `bytes`, which must hold exactly `shape` values of `dtype`.
    ///
    /// Errors: [`Error::Invalid`] where the length does not fit.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let name = name.into();
        let want = elements(&shape).and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        Self::checked(name, dtype, shape, bytes, Encoding::Plain, want)
    }

    /// A tensor in GGUF's Q8_0 encoding, whose rows are whole blocks of 32 values.
    ///
    /// Errors: [`Error::Invalid`] where the length does not fit.
    pub fn q8_0(name: impl Into<String>, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let whole = shape.last().is_some_and(|n| n.is_multiple_of(Q8_0_VALUES));
        let want = elements(&shape).filter(|_| whole).map(|n| n / Q8_0_VALUES * Q8_0_BYTES);
        Self::checked(name.into(), DType::U8, shape, bytes, Encoding::Q8_0, want)
    }

    fn checked(
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        bytes: Bytes,
        encoding: Encoding,
        want: Option<usize>,
    ) -> Result<Self> {
        let found = bytes.as_slice().len();
        if want != Some(found) {
            let expected = want.map_or(format!("a shape that fits, not {shape:?}"), |n| format!("{n} bytes"));
            return Err(Error::invalid(format!("tensor {name}"), format!("{found} bytes"), expected));
        }
        Ok(Self { name, dtype, shape, bytes, encoding })
    }

    /// The same codes, multiplied by `scale` wherever values are read.
    ///
    /// Errors: [`Error::Invalid`] for a tensor that is not plain f8_e4m3.
    pub fn with_scale(mut self, scale: Scale) -> Result<Self> {
        if !may_scale(self.dtype) || !matches!(self.encoding, Encoding::Plain) {
            let found = format!("dtype {} with a scale", self.dtype_name());
            return Err(Error::invalid(format!("tensor {}", self.name), found, "a scale on F8_E4M3 only"));
        }
        if let Scale::Rows(rows) = &scale
            && self.shape.first() != Some(&rows.len())
        {
            return Err(Error::shape(
                format!("tensor {}", self.name),
                &self.shape,
                format!("{} rows", rows.len()),
            ));
        }
        self.encoding = Encoding::Scaled(scale);
        Ok(self)
    }

    /// A stand-in of the right shape and no data, for a tensor whose absence was already recorded.
    pub(super) fn placeholder(name: String, shape: &[usize]) -> Self {
        Self {
            name,
            dtype: DType::F32,
            shape: shape.to_vec(),
            bytes: Bytes::new([]),
            encoding: Encoding::Plain,
        }
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

    /// Stored dtype; u8 for the blocks of Q8_0.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Name of what is stored, as safetensors and GGUF have it, such as `F8_E4M3`.
    pub fn dtype_name(&self) -> &'static str {
        match (&self.encoding, self.dtype) {
            (Encoding::Q8_0, _) => "Q8_0",
            (_, DType::F32) => "F32",
            (_, DType::F64) => "F64",
            (_, DType::BF16) => "BF16",
            (_, DType::F16) => "F16",
            (_, DType::F8E4M3) => "F8_E4M3",
            (_, DType::U8) => "U8",
            (_, DType::U32) => "U32",
            (_, DType::I16) => "I16",
            (_, DType::I32) => "I32",
            (_, DType::I64) => "I64",
            (_, other) => other.as_str(),
        }
    }

    /// Factors of a scaled tensor, which [`Stored::bytes`] do not include.
    pub fn scale(&self) -> Option<&Scale> {
        match &self.encoding {
            Encoding::Scaled(scale) => Some(scale),
            _ => None,
        }
    }

    /// Whether the values are floats that can be widened.
    pub fn is_float(&self) -> bool {
        matches!(self.encoding, Encoding::Q8_0) || is_float(self.dtype)
    }

    /// Whether the bytes are the values, without scale or blocks.
    pub fn is_plain(&self) -> bool {
        matches!(self.encoding, Encoding::Plain)
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The stored bytes, possibly unaligned. They are the values only where [`Stored::is_plain`]; use
    /// [`Stored::widen_range`] otherwise.
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
        let part = index * shape[0]..(index + 1) * shape[0];
        let encoding = match &self.encoding {
            Encoding::Scaled(scale) => Encoding::Scaled(scale.slice(part)),
            other => other.clone(), // rows are whole blocks
        };
        let bytes = self.bytes.slice(index * bytes..(index + 1) * bytes);
        Ok(Self { name: self.name.clone(), dtype: self.dtype, shape, bytes, encoding })
    }

    /// The values `range` (flat, row-major) widened to f32.
    pub fn widen_range(&self, range: Range<usize>, out: &mut [f32]) {
        if matches!(self.encoding, Encoding::Q8_0) {
            return widen_q8_0(self.bytes(), range.start, out);
        }
        let size = self.dtype.size_in_bytes();
        widen(self.dtype, &self.bytes()[range.start * size..range.end * size], out);
        if let Encoding::Scaled(scale) = &self.encoding {
            scale.apply(range.start, self.elements(), out);
        }
    }

    /// All values as f32.
    ///
    /// Errors: [`Error::Invalid`] for a dtype that is not one of [`widen`]'s.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        if !self.is_float() {
            return Err(Error::invalid(
                format!("tensor {}", self.name),
                format!("dtype {}", self.dtype_name()),
                "F32, F64, BF16, F16, F8_E4M3 or Q8_0",
            ));
        }
        let mut out = vec![0f32; self.elements()];
        self.widen_range(0..out.len(), &mut out);
        Ok(out)
    }

    /// The tensor widened to f32 on `device`, shape kept.
    pub fn to_f32_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.to_f32_vec()?, self.shape.as_slice(), device)?)
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({}, {}, {:?})", self.name, self.dtype_name(), self.shape)
    }
}

/// Number of values of `shape`, if that is a number.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n))
}

/// Widens Q8_0 values from flat index `start` on.
fn widen_q8_0(bytes: &[u8], start: usize, out: &mut [f32]) {
    let (mut at, mut rest) = (start, out);
    while !rest.is_empty() {
        let inside = at % Q8_0_VALUES;
        let block = &bytes[at / Q8_0_VALUES * Q8_0_BYTES..][..Q8_0_BYTES];
        let factor = widen_f16(u16::from_le_bytes([block[0], block[1]]));
        let count = (Q8_0_VALUES - inside).min(rest.len());
        let (values, after) = rest.split_at_mut(count);
        for (v, code) in values.iter_mut().zip(&block[2 + inside..]) {
            *v = factor * f32::from(*code as i8);
        }
        (at, rest) = (at + count, after);
    }
}

/// Whether [`widen`] can read the dtype.
fn is_float(dtype: DType) -> bool {
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
    fn q8_0_is_read_from_any_value_on() {
        let mut bytes = Vec::new();
        for block in 0..4u8 {
            bytes.extend(f16::from_f32(0.5 * f32::from(block + 1)).to_le_bytes());
            bytes.extend((0..32).map(|i: u8| i.wrapping_sub(16)));
        }
        let stored = Stored::q8_0("w", vec![2, 64], Bytes::new(bytes)).unwrap();
        let all = stored.to_f32_vec().unwrap();
        assert_eq!((all[0], all[31], all[127]), (-8.0, 7.5, 30.0));
        let mut part = [0f32; 70];
        stored.widen_range(30..100, &mut part);
        assert_eq!(part, all[30..100]);
        assert_eq!(stored.rows(1, 2).unwrap().to_f32_vec().unwrap(), all[64..]);
        assert!(Stored::q8_0("w", vec![2, 33], Bytes::new([0u8; 68])).is_err());
        assert!(Stored::new("w", DType::F32, vec![usize::MAX, 2], Bytes::new([])).is_err());
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
