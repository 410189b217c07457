//! GGUF files, versions 2 and 3: tensors of F32, F16, BF16 and of quantised blocks, mapped.
//!
//! Source: ggml `docs/gguf.md`; ComfyUI-GGUF `loader.py` for the shapes it keeps aside.

use std::collections::HashMap;

use candle_core::DType;

use super::blocks::BlockFormat;
use super::bytes::Bytes;
use super::stored::Stored;
use crate::{Result, WeightsError};

/// First bytes of a GGUF file.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// Key prefix under which converters keep the shape of a tensor that they had to reshape.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";
/// Largest number of axes taken seriously.
const MAX_AXES: u32 = 8;

/// The tensors of a GGUF file.
///
/// Errors: [`WeightsError::Format`] for a damaged file, [`WeightsError::Dtype`] naming a quantisation that is
/// not supported.
pub(super) fn tensors(bytes: &Bytes, label: &str) -> Result<Vec<Stored>> {
    let format =
        |reason: String| WeightsError::Format { label: label.to_string(), reason: format!("GGUF: {reason}") };
    let mut reader = Reader { data: bytes.as_slice(), at: MAGIC.len() };
    let header = header(&mut reader).map_err(format)?;
    let base = reader.at.checked_next_multiple_of(header.alignment).unwrap_or(usize::MAX);
    let stored = header.tensors.into_iter().map(|tensor| {
        let shape = match header.shapes.get(&tensor.name) {
            Some(shape) if product(shape) == product(&tensor.shape) => shape.clone(),
            Some(shape) => {
                let reason =
                    format!("tensor {} has shape {:?} and originally {shape:?}", tensor.name, tensor.shape);
                return Err(format(reason).into());
            }
            None => tensor.shape.clone(),
        };
        let elements = product(&tensor.shape);
        let Some(kind) = Kind::from_ggml(tensor.kind) else {
            return Err(WeightsError::Dtype {
                label: label.to_string(),
                name: tensor.name,
                found: type_name(tensor.kind),
                expected: Kind::names(),
            }
            .into());
        };
        let size = elements.and_then(|n| match kind {
            Kind::Plain(dtype) => n.checked_mul(dtype.size_in_bytes()),
            // What is no whole blocks is an error below.
            Kind::Blocks(format) => (n / format.values()).checked_mul(format.bytes()),
        });
        let range = usize::try_from(tensor.offset)
            .ok()
            .and_then(|offset| offset.checked_add(base))
            .zip(size)
            .and_then(|(from, size)| Some(from..from.checked_add(size)?))
            .filter(|range| range.end <= bytes.as_slice().len())
            .ok_or_else(|| format(format!("tensor {} lies beyond the file's end", tensor.name)))?;
        match kind {
            Kind::Plain(dtype) => Stored::new(tensor.name, dtype, shape, bytes.slice(range)),
            // Blocks run along the last axis as stored, which a restored shape may split.
            Kind::Blocks(format) => {
                Stored::blocks(tensor.name, format, tensor.shape, bytes.slice(range))?.reshape(&shape)
            }
        }
    });
    stored.collect()
}

/// What can be read of a tensor.
#[derive(Clone, Copy)]
enum Kind {
    Plain(DType),
    Blocks(BlockFormat),
}

impl Kind {
    fn from_ggml(number: u32) -> Option<Self> {
        use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        Some(match number {
            0 => Self::Plain(DType::F32),
            1 => Self::Plain(DType::F16),
            2 => Self::Blocks(Q4_0),
            3 => Self::Blocks(Q4_1),
            6 => Self::Blocks(Q5_0),
            7 => Self::Blocks(Q5_1),
            8 => Self::Blocks(Q8_0),
            10 => Self::Blocks(Q2K),
            11 => Self::Blocks(Q3K),
            12 => Self::Blocks(Q4K),
            13 => Self::Blocks(Q5K),
            14 => Self::Blocks(Q6K),
            30 => Self::Plain(DType::BF16),
            _ => return None,
        })
    }

    /// What can be read, for messages.
    fn names() -> String {
        let [first @ .., last] = BlockFormat::ALL.map(BlockFormat::name);
        format!("F32, F16, BF16, {} or {last}", first.join(", "))
    }
}

struct Header {
    tensors: Vec<TensorInfo>,
    shapes: HashMap<String, Vec<usize>>,
    alignment: usize,
}

struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

fn header(reader: &mut Reader<'_>) -> std::result::Result<Header, String> {
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("version {version}, expected 2 or 3"));
    }
    let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
    let (mut shapes, mut alignment) = (HashMap::new(), 32);
    for _ in 0..key_count {
        let key = reader.text()?;
        let kind = reader.u32()?;
        if key == "general.alignment" && kind == 4 {
            alignment = reader.u32()? as usize;
            if !alignment.is_power_of_two() {
                return Err(format!("alignment {alignment}"));
            }
        } else if let (Some(name), 9) = (key.strip_prefix(ORIGINAL_SHAPE), kind) {
            shapes.insert(name.to_string(), reader.shape()?);
        } else {
            reader.skip(kind)?;
        }
    }
    let mut tensors = Vec::new(); // grows with what the file really holds
    for _ in 0..tensor_count {
        let name = reader.text()?.to_string();
        let axes = reader.u32()?;
        if axes > MAX_AXES {
            return Err(format!("tensor {name} has {axes} axes"));
        }
        let mut shape = (0..axes).map(|_| reader.size()).collect::<std::result::Result<Vec<_>, _>>()?;
        shape.reverse(); // the fastest axis comes first in the file
        tensors.push(TensorInfo { name, shape, kind: reader.u32()?, offset: reader.u64()? });
    }
    Ok(Header { tensors, shapes, alignment })
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

/// Name of a ggml type that cannot be read.
fn type_name(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        16..=23 | 29 => "an IQ type",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        _ => return format!("ggml type {kind}"),
    };
    name.to_string()
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> std::result::Result<&'a [u8], String> {
        let taken = self.data[self.at..].get(..n).ok_or("the header ends early")?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "the header ends early".to_string())
    }

    fn u32(&mut self) -> std::result::Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> std::result::Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> std::result::Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|_| "a size beyond this machine's".to_string())
    }

    fn text(&mut self) -> std::result::Result<&'a str, String> {
        let n = self.size()?;
        std::str::from_utf8(self.take(n)?).map_err(|_| "a name that is not UTF-8".to_string())
    }

    /// An array of i32 or i64 as a shape.
    fn shape(&mut self) -> std::result::Result<Vec<usize>, String> {
        let (kind, count) = (self.u32()?, self.u64()?);
        if count > u64::from(MAX_AXES) {
            return Err(format!("a shape of {count} axes"));
        }
        let value = |reader: &mut Self| match kind {
            4 | 5 => Ok(reader.u32()? as usize),
            10 | 11 => reader.size(),
            other => Err(format!("a shape of value type {other}")),
        };
        (0..count).map(|_| value(self)).collect()
    }

    /// Skips a value of a metadata type.
    fn skip(&mut self, kind: u32) -> std::result::Result<(), String> {
        match kind {
            8 => self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, self.size()?);
                match width(kind) {
                    Some(width) => self.take(count.saturating_mul(width)).map(drop),
                    None if kind == 8 => (0..count).try_for_each(|_| self.text().map(drop)),
                    None => Err(format!("an array of value type {kind}")),
                }
            }
            _ => self.take(width(kind).ok_or_else(|| format!("a value of type {kind}"))?).map(drop),
        }
    }
}

/// Bytes of a metadata value of fixed length.
fn width(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}
