use std::ops::Range;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use super::blocks::BlockFormat;
use super::bytes::Bytes;
use super::scale::{Scale, may_scale};
use super::widen::{is_float, widen};
use crate::device::to_host;
use crate::{Error, Result};

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
    /// They are blocks of GGUF.
    Blocks(BlockFormat),
}

impl Stored {
    /// A tensor over `bytes`, which must hold exactly `shape` values of `dtype`.
    ///
    /// Errors: [`Error::Invalid`] where the length does not fit.
    pub fn new(name: impl Into<String>, dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let name = name.into();
        let want = elements(&shape).and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        Self::checked(name, dtype, shape, bytes, Encoding::Plain, want)
    }

    /// A tensor of GGUF's blocks, of which each row has a whole number.
    ///
    /// Errors: [`Error::Invalid`] where rows cut blocks, or the length does not fit.
    pub fn blocks(
        name: impl Into<String>,
        format: BlockFormat,
        shape: Vec<usize>,
        bytes: Bytes,
    ) -> Result<Self> {
        let whole = shape.last().is_some_and(|n| n.is_multiple_of(format.values()));
        let want = elements(&shape).filter(|_| whole).and_then(|n| format.size(n));
        Self::checked(name.into(), DType::U8, shape, bytes, Encoding::Blocks(format), want)
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
        let values = to_host(tensor)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, DType::F32, tensor.dims().to_vec(), Bytes::new(bytes))
    }

    /// The values of a tensor as blocks, rounded: for tests and for weights made in memory.
    ///
    /// Errors: rows that are no whole blocks.
    pub fn quantised(name: impl Into<String>, format: BlockFormat, tensor: &Tensor) -> Result<Self> {
        let values = to_host(tensor)?.to_dtype(DType::F32)?;
        let quantised = QTensor::quantize(&values, format.ggml())?;
        Self::blocks(name, format, tensor.dims().to_vec(), Bytes::new(quantised.data()?.into_owned()))
    }

    /// Name in the file it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stored dtype; u8 for blocks.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Name of what is stored, as safetensors and GGUF have it, such as `F8_E4M3`.
    pub fn dtype_name(&self) -> &'static str {
        match (&self.encoding, self.dtype) {
            (Encoding::Blocks(format), _) => format.name(),
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

    /// Format of a tensor of GGUF's blocks.
    pub fn block_format(&self) -> Option<BlockFormat> {
        match self.encoding {
            Encoding::Blocks(format) => Some(format),
            _ => None,
        }
    }

    /// Whether the values are floats that can be widened.
    pub fn is_float(&self) -> bool {
        self.block_format().is_some() || is_float(self.dtype)
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
        // A restored shape may have rows that cut blocks.
        if let Encoding::Blocks(format) = self.encoding
            && !(self.elements() / parts).is_multiple_of(format.values())
        {
            let found = format!("{} in {parts} parts of {:?}", format.name(), self.shape);
            let expected = format!("parts of whole blocks of {} values", format.values());
            return Err(Error::invalid(format!("tensor {}", self.name), found, expected));
        }
        let bytes = self.bytes().len() / parts;
        let mut shape = self.shape.clone();
        shape[0] = rows / parts;
        let part = index * shape[0]..(index + 1) * shape[0];
        let encoding = match &self.encoding {
            Encoding::Scaled(scale) => Encoding::Scaled(scale.slice(part)),
            other => other.clone(),
        };
        let bytes = self.bytes.slice(index * bytes..(index + 1) * bytes);
        Ok(Self { name: self.name.clone(), dtype: self.dtype, shape, bytes, encoding })
    }

    /// The values `range` (flat, row-major) widened to f32.
    pub fn widen_range(&self, range: Range<usize>, out: &mut [f32]) {
        if let Encoding::Blocks(format) = self.encoding {
            return format.widen(self.bytes(), range.start, out);
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
                "F32, F64, BF16, F16, F8_E4M3 or blocks of GGUF",
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

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn blocks_are_read_from_any_value_on() {
        let mut bytes = Vec::new();
        for block in 0..4u8 {
            bytes.extend(f16::from_f32(0.5 * f32::from(block + 1)).to_le_bytes());
            bytes.extend((0..32).map(|i: u8| i.wrapping_sub(16)));
        }
        let q8_0 = |shape, bytes| Stored::blocks("w", BlockFormat::Q8_0, shape, bytes);
        let stored = q8_0(vec![2, 64], Bytes::new(bytes)).unwrap();
        let all = stored.to_f32_vec().unwrap();
        assert_eq!((all[0], all[31], all[127]), (-8.0, 7.5, 30.0));
        let mut part = [0f32; 70];
        stored.widen_range(30..100, &mut part);
        assert_eq!(part, all[30..100]);
        assert_eq!(stored.rows(1, 2).unwrap().to_f32_vec().unwrap(), all[64..]);
        assert!(q8_0(vec![2, 33], Bytes::new([0u8; 68])).is_err());
        assert!(Stored::new("w", DType::F32, vec![usize::MAX, 2], Bytes::new([])).is_err());
        let restored = stored.reshape(&[8, 16]).unwrap();
        assert_eq!(restored.rows(3, 4).unwrap().to_f32_vec().unwrap(), all[96..]);
        let message = restored.rows(0, 8).unwrap_err().to_string();
        assert!(message.contains("Q8_0 in 8 parts of [8, 16]"), "{message}");
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
