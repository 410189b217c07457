//! GGUF files, versions 2 and 3: tensors of F32, F16, BF16 and of quantised blocks, mapped.
//!
//! Source: ggml `docs/gguf.md`; ComfyUI-GGUF `loader.py` for the shapes it keeps aside.

use std::collections::HashMap;

use candle_core::DType;

use super::blocks::BlockFormat;
use super::bytes::Bytes;
use super::gguf_metadata::{self, GgufMetadata, Reader};
use super::stored::Stored;
use crate::{Result, WeightsError};

/// The tensor of bytes that stands for the vocabulary in a GGUF file: the file's start, for [`GgufMetadata::read`].
/// ComfyUI's text encoders have theirs in a tensor as well.
pub const GGUF_VOCABULARY: &str = "tokenizer.ggml";

/// The key that a vocabulary has.
const TOKENS: &str = "tokenizer.ggml.tokens";
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
    let mut reader = Reader::new(bytes.as_slice());
    let header = header(&mut reader).map_err(format)?;
    let base = reader.at.checked_next_multiple_of(header.alignment).unwrap_or(usize::MAX);
    let vocabulary = header
        .vocabulary
        .map(|length| Stored::new(GGUF_VOCABULARY, DType::U8, vec![length], bytes.slice(0..length)));
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
    stored.chain(vocabulary).collect()
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
    /// Length up to the end of the metadata, where these have a vocabulary.
    vocabulary: Option<usize>,
}

struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

fn header(reader: &mut Reader<'_>) -> std::result::Result<Header, String> {
    let (tensor_count, metadata) = gguf_metadata::read(reader)?;
    let vocabulary = metadata.keys().any(|key| key == TOKENS).then_some(reader.at);
    let alignment = metadata.number("general.alignment").unwrap_or(32) as usize;
    if !alignment.is_power_of_two() {
        return Err(format!("alignment {alignment}"));
    }
    let mut shapes = HashMap::new();
    for key in metadata.keys() {
        if let Some(name) = key.strip_prefix(ORIGINAL_SHAPE) {
            shapes.insert(name.to_string(), original_shape(&metadata, key)?);
        }
    }
    let mut tensors = Vec::new(); // grows with what the file really holds
    for _ in 0..tensor_count {
        let name = reader.name()?.to_string();
        let axes = reader.u32()?;
        if axes > MAX_AXES {
            return Err(format!("tensor {name} has {axes} axes"));
        }
        let mut shape = (0..axes).map(|_| reader.size()).collect::<std::result::Result<Vec<_>, _>>()?;
        shape.reverse(); // the fastest axis comes first in the file
        tensors.push(TensorInfo { name, shape, kind: reader.u32()?, offset: reader.u64()? });
    }
    Ok(Header { tensors, shapes, alignment, vocabulary })
}

fn original_shape(metadata: &GgufMetadata<'_>, key: &str) -> std::result::Result<Vec<usize>, String> {
    let shape = metadata.integers(key).ok_or_else(|| format!("{key} is no list of whole numbers"))?;
    if shape.len() > MAX_AXES as usize {
        return Err(format!("{key} has {} axes", shape.len()));
    }
    shape
        .iter()
        .map(|&axis| usize::try_from(axis).map_err(|_| format!("{key} has an axis of {axis}")))
        .collect()
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
