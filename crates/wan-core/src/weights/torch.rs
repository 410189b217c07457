//! PyTorch's `.pth` files: a zip archive of a pickle and uncompressed storages, which stay mapped.
//!
//! Source: PyTorch `torch/serialization.py`, `_save`.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::ZipArchive;

use super::bytes::Bytes;
use super::pickle::{PickledTensor, state_dict};
use super::stored::Stored;
use crate::{Result, WeightsError};

/// First bytes of a zip archive.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// A pickle of names, shapes and dtypes is not larger than this.
const MAX_PICKLE: u64 = 64 << 20;

/// The tensors of a PyTorch file.
///
/// Errors: [`WeightsError::Format`] for a damaged archive, a compressed storage, a pickle with anything but
/// tensors in it, a big-endian file, and tensors that are not contiguous.
pub(super) fn tensors(bytes: &Bytes, label: &str) -> Result<Vec<Stored>> {
    let format = |reason: String| WeightsError::Format { label: label.to_string(), reason };
    let zip = |e: zip::result::ZipError| format(format!("not a readable zip archive: {e}"));
    let data = bytes.as_slice();
    let mut archive = ZipArchive::new(Cursor::new(data)).map_err(zip)?;
    let mut storages: HashMap<String, Range<usize>> = HashMap::new();
    let mut pickle = None;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(zip)?;
        let name = file.name().map_err(zip)?.to_string();
        let (_, inner) = name.split_once('/').unwrap_or(("", &name));
        let read = |file: &mut dyn Read| {
            let mut content = Vec::new();
            file.take(MAX_PICKLE + 1)
                .read_to_end(&mut content)
                .map_err(|e| format(format!("{name}: {e}")))?;
            if content.len() as u64 > MAX_PICKLE {
                return Err(format(format!("{name} is larger than {MAX_PICKLE} bytes")));
            }
            Ok(content)
        };
        match inner {
            "data.pkl" => pickle = Some(read(&mut file)?),
            "byteorder" if read(&mut file)? != b"little" => {
                return Err(format("stored big-endian, expected little-endian".into()).into());
            }
            _ => {
                let Some(key) = inner.strip_prefix("data/") else { continue };
                let start = file.data_start().and_then(|n| usize::try_from(n).ok());
                let range = start.zip(usize::try_from(file.size()).ok()).and_then(|(start, size)| {
                    let end = start.checked_add(size)?;
                    (end <= data.len()
                        && file.compression() == zip::CompressionMethod::Stored
                        && !file.encrypted())
                    .then_some(start..end)
                });
                let range = range.ok_or_else(|| {
                    format(format!(
                        "storage {name} is compressed or beyond the file's end; expected it stored whole"
                    ))
                })?;
                storages.insert(key.to_string(), range);
            }
        }
    }
    let pickle = pickle.ok_or_else(|| format("a zip archive without data.pkl, not a PyTorch file".into()))?;
    let tensors = state_dict(&pickle).map_err(format)?;
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let range = storages.get(tensor.storage).ok_or_else(|| {
            format(format!("storage {} of tensor {name} is not in the archive", tensor.storage))
        })?;
        let inside = extent(&tensor).map_err(|reason| format(format!("tensor {name}: {reason}")))?;
        if inside.end > range.len() {
            let reason = format!("tensor {name} ends at byte {} of a storage of {}", inside.end, range.len());
            return Err(format(reason).into());
        }
        let slice = bytes.slice(range.start + inside.start..range.start + inside.end);
        Stored::new(name.to_string(), tensor.dtype, tensor.shape, slice)
    });
    tensors.collect()
}

/// The bytes of a contiguous tensor in its storage.
fn extent(tensor: &PickledTensor) -> std::result::Result<Range<usize>, String> {
    const TOO_LARGE: &str = "its size overflows";
    if tensor.stride.len() != tensor.shape.len() {
        return Err(format!("shape {:?} with stride {:?}", tensor.shape, tensor.stride));
    }
    let mut values = 1usize;
    let empty = tensor.shape.contains(&0);
    for (length, stride) in tensor.shape.iter().zip(&tensor.stride).rev() {
        // The stride of an axis of length 1 does not count.
        if *length > 1 && *stride != values && !empty {
            return Err(format!(
                "shape {:?} with stride {:?} is not contiguous; save it again after `.contiguous()`",
                tensor.shape, tensor.stride
            ));
        }
        values = values.checked_mul(*length).ok_or(TOO_LARGE)?;
    }
    let size = tensor.dtype.size_in_bytes();
    let start = tensor.offset.checked_mul(size).ok_or(TOO_LARGE)?;
    let end = values.checked_mul(size).and_then(|n| n.checked_add(start)).ok_or(TOO_LARGE)?;
    Ok(start..end)
}
