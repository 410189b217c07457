//! What a GGUF file says of itself: values by key, read where they lie.
//!
//! Source: ggml `docs/gguf.md`.

use std::collections::HashMap;

/// First bytes of a GGUF file.
pub(super) const MAGIC: &[u8] = b"GGUF";

/// Value types, of those that are told apart here.
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// The metadata of a GGUF file, version 2 or 3.
#[derive(Debug)]
pub struct GgufMetadata<'a> {
    values: HashMap<&'a str, Value<'a>>,
}

/// A value as it lies in the file.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// A number, or a text without its length.
    Single { kind: u32, bytes: &'a [u8] },
    /// `count` of them; texts with their lengths.
    Array { kind: u32, count: usize, bytes: &'a [u8] },
}

impl<'a> GgufMetadata<'a> {
    /// Reads the start of a file, which may end after the metadata.
    ///
    /// Errors: what is damaged, or a version that is not known.
    pub fn read(file: &'a [u8]) -> Result<Self, String> {
        if !file.starts_with(MAGIC) {
            return Err("no GGUF file".into());
        }
        read(&mut Reader::new(file)).map(|(_, metadata)| metadata)
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.values.get(key)? {
            Value::Single { kind: 7, bytes: [byte] } => Some(*byte != 0),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.values.get(key)? {
            Value::Single { kind: TEXT, bytes } => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An array of bytes.
    pub fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        match self.values.get(key)? {
            Value::Array { kind: 0 | 1, bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// An array of texts; each need not be UTF-8.
    pub fn texts(&self, key: &str) -> Option<Vec<&'a [u8]>> {
        match self.values.get(key)? {
            Value::Array { kind: TEXT, count, bytes } => {
                let mut reader = Reader { data: bytes, at: 0 };
                (0..*count).map(|_| reader.text().ok()).collect()
            }
            _ => None,
        }
    }

    /// An array of f32.
    pub fn floats(&self, key: &str) -> Option<Vec<f32>> {
        match self.values.get(key)? {
            Value::Array { kind: 6, bytes, .. } => {
                Some(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
            }
            _ => None,
        }
    }

    /// An array of i32, u32, i64 or u64, as i64.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        match self.values.get(key)? {
            Value::Array { kind: kind @ (4 | 5), bytes, .. } => {
                let value = |bytes: &[u8; 4]| match kind {
                    4 => i64::from(u32::from_le_bytes(*bytes)),
                    _ => i64::from(i32::from_le_bytes(*bytes)),
                };
                Some(bytes.as_chunks().0.iter().map(value).collect())
            }
            Value::Array { kind: 10 | 11, bytes, .. } => {
                Some(bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value)).collect())
            }
            _ => None,
        }
    }

    /// A number of type u32.
    pub fn number(&self, key: &str) -> Option<u32> {
        match self.values.get(key)? {
            Value::Single { kind: 4, bytes } => Some(u32::from_le_bytes((*bytes).try_into().ok()?)),
            _ => None,
        }
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.keys().copied()
    }
}

/// The number of tensors, and the metadata; the reader then is where the tensors' names begin.
pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Result<(u64, GgufMetadata<'a>), String> {
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("version {version}, expected 2 or 3"));
    }
    let (tensors, keys) = (reader.u64()?, reader.u64()?);
    let mut values = HashMap::new(); // grows with what the file really holds
    for _ in 0..keys {
        let key = reader.name()?;
        let kind = reader.u32()?;
        values.insert(key, reader.value(kind)?);
    }
    Ok((tensors, GgufMetadata { values }))
}

/// Reads a file from its start on.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    /// Begins after the [`MAGIC`].
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { data: file, at: MAGIC.len() }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let taken = self.data[self.at..].get(..n).ok_or("the header ends early")?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "the header ends early".to_string())
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn size(&mut self) -> Result<usize, String> {
        usize::try_from(self.u64()?).map_err(|_| "a size beyond this machine's".to_string())
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let n = self.size()?;
        self.take(n)
    }

    pub(super) fn name(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.text()?).map_err(|_| "a name that is not UTF-8".to_string())
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, String> {
        if kind == TEXT {
            return Ok(Value::Single { kind, bytes: self.text()? });
        }
        if kind != ARRAY {
            let width = width(kind).ok_or_else(|| format!("a value of type {kind}"))?;
            return Ok(Value::Single { kind, bytes: self.take(width)? });
        }
        let (kind, count) = (self.u32()?, self.size()?);
        let from = self.at;
        match width(kind) {
            Some(width) => self.take(count.saturating_mul(width)).map(drop)?,
            // Vocabularies may hold pieces of characters, which are no UTF-8.
            None if kind == TEXT => (0..count).try_for_each(|_| self.text().map(drop))?,
            None => return Err(format!("an array of value type {kind}")),
        }
        Ok(Value::Array { kind, count, bytes: &self.data[from..self.at] })
    }
}

/// Bytes of a value of fixed length.
fn width(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}
