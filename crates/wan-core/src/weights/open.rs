use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::bytes::Bytes;
use super::names::Naming;
use super::stored::Stored;
use super::{gguf, gguf_metadata, torch};
use crate::{Error, Result, WeightsError};

/// The tensors of one component, mapped from one file or a sharded set, under the names in the files.
#[derive(Clone)]
pub struct WeightSet {
    label: String,
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) naming: Option<Naming>,
    pub(super) unused: Vec<(String, &'static str)>,
    metadata: HashMap<String, String>,
    container: Container,
    files: usize,
}

/// What kind of file tensors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Safetensors.
    Safetensors,
    /// A PyTorch file: a zip archive with a pickle.
    Torch,
    /// GGUF.
    Gguf,
    /// None: made in memory.
    Memory,
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch zip",
            Self::Gguf => "GGUF",
            Self::Memory => "memory",
        })
    }
}

impl WeightSet {
    /// Opens a safetensors, PyTorch (`.pth`) or GGUF file, the index JSON of a sharded safetensors set, or a
    /// folder that holds one of the safetensors kinds. What a file is, its first bytes tell, not its name.
    ///
    /// Reads headers only; the data stay in the file, mapped. Of a pickle only tensors are read; nothing in it
    /// is executed.
    ///
    /// Errors: [`Error::Io`], or [`WeightsError::Format`] for a damaged or truncated file.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let files = files_of(path)?;
        let mut set = Self::empty(label);
        for file in files {
            set.add(map(&file)?, &file.display().to_string())?;
        }
        Ok(set)
    }

    /// A set over bytes in memory, such as the embedded model's.
    pub fn from_bytes(label: impl Into<String>, bytes: Bytes) -> Result<Self> {
        let label = label.into();
        let mut set = Self::empty(label.clone());
        set.add(bytes, &label)?;
        Ok(set)
    }

    /// A set of tensors made in memory.
    pub fn from_tensors(label: impl Into<String>, tensors: impl IntoIterator<Item = Stored>) -> Self {
        let tensors = tensors.into_iter().map(|t| (t.name().to_string(), t)).collect();
        Self { tensors, ..Self::empty(label.into()) }
    }

    fn empty(label: String) -> Self {
        Self {
            label,
            tensors: BTreeMap::new(),
            naming: None,
            unused: Vec::new(),
            metadata: HashMap::new(),
            container: Container::Memory,
            files: 0,
        }
    }

    /// What kind of file the tensors come from.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Tensors of the file, by their names there, that a translation to canonical names left out, and why.
    pub fn unused(&self) -> &[(String, &'static str)] {
        &self.unused
    }

    /// The file as the user named it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// `__metadata__` of the header (of all shards).
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// One tensor.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// Shape of one tensor, for reading a configuration off the weights.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.get(name).map(Stored::shape)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.tensors.values()
    }

    /// Number of modules in a numbered list: one above the largest `N` in names `prefix.N.…`.
    pub fn count(&self, prefix: &str) -> usize {
        self.names()
            .filter_map(|n| {
                n.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()?.parse::<usize>().ok()
            })
            .max()
            .map_or(0, |n| n.saturating_add(1))
    }

    pub(super) fn with_tensors(&self, tensors: BTreeMap<String, Stored>) -> Self {
        Self { tensors, ..self.clone() }
    }

    fn add(&mut self, bytes: Bytes, label: &str) -> Result<()> {
        let start = bytes.as_slice();
        let (container, tensors) = if start.starts_with(gguf_metadata::MAGIC) {
            (Container::Gguf, gguf::tensors(&bytes, label)?)
        } else if start.starts_with(torch::MAGIC) {
            (Container::Torch, torch::tensors(&bytes, label)?)
        } else if start.starts_with(b"\x80\x02")
            || start.starts_with(b"\x80\x03")
            || start.starts_with(b"\x80\x04")
        {
            // A safetensors header of this length would be several hundred bytes and start with `{`.
            match self.safetensors(&bytes, label) {
                Ok(tensors) => (Container::Safetensors, tensors),
                Err(_) => {
                    let reason =
                        "a bare pickle, as PyTorch before 1.6 wrote; save it again with a newer one, or \
                                  as safetensors"
                            .into();
                    return Err(WeightsError::Format { label: label.to_string(), reason }.into());
                }
            }
        } else {
            (Container::Safetensors, self.safetensors(&bytes, label)?)
        };
        self.container = container;
        self.files += 1;
        for stored in tensors {
            let name = stored.name().to_string();
            // It would be shown on a terminal, which obeys some.
            if name.contains(char::is_control) {
                let reason = format!("found control characters in the name {name:?}, expected none");
                return Err(WeightsError::Format { label: label.to_string(), reason }.into());
            }
            if self.tensors.insert(name.clone(), stored).is_some() {
                let reason = format!("tensor {name} is there twice");
                return Err(WeightsError::Format { label: label.to_string(), reason }.into());
            }
        }
        Ok(())
    }

    fn safetensors(&mut self, bytes: &Bytes, label: &str) -> Result<Vec<Stored>> {
        let format = |e: safetensors::SafeTensorError| WeightsError::Format {
            label: label.to_string(),
            reason: format!("not a readable safetensors file: {e}"),
        };
        let data = bytes.as_slice();
        let (length, header) = SafeTensors::read_metadata(data).map_err(format)?;
        if let Some(metadata) = header.metadata() {
            self.metadata.extend(metadata.clone());
        }
        let base = 8 + length;
        header
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let dtype = dtype(info.dtype).ok_or_else(|| WeightsError::Dtype {
                    label: label.to_string(),
                    name: name.clone(),
                    found: format!("{:?}", info.dtype),
                    expected: "F32, F64, BF16, F16, F8_E4M3 or an integer dtype".into(),
                })?;
                let (from, to) = info.data_offsets;
                // `read_metadata` has checked that offsets join up and end with the file.
                Stored::new(name, dtype, info.shape.clone(), bytes.slice(base + from..base + to))
            })
            .collect()
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::F8_E4M3 => DType::F8E4M3,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        Dtype::U32 => DType::U32,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}

#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the mapping is read-only and private to this process. As with every mapped model file, another
    // process that truncates the file while it is in use ends this one; the safetensors ecosystem accepts that.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Bytes::new(map))
}

/// The `.safetensors` files that `path` stands for.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(|e| Error::io(path, e))?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .collect();
        entries.sort();
        let ends = |p: &PathBuf, end: &str| p.to_string_lossy().ends_with(end);
        let indices: Vec<&PathBuf> = entries.iter().filter(|p| ends(p, ".safetensors.index.json")).collect();
        match indices.as_slice() {
            [] => {}
            [index] => return shards(index),
            several => {
                return Err(Error::invalid(
                    format!("weights folder {}", path.display()),
                    format!("{} sets of .safetensors files", several.len()),
                    "one set, or the .safetensors.index.json of the one that is meant",
                ));
            }
        }
        let files: Vec<PathBuf> = entries.into_iter().filter(|p| ends(p, ".safetensors")).collect();
        return match files.len() {
            1 => Ok(files),
            n => Err(Error::invalid(
                format!("weights folder {}", path.display()),
                format!("{n} .safetensors files and no index"),
                "one .safetensors file, or a set with its .safetensors.index.json",
            )),
        };
    }
    if path.extension().is_some_and(|e| e == "json") { shards(path) } else { Ok(vec![path.to_path_buf()]) }
}

/// The shards that an index JSON names; they lie beside it.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let format = |reason: String| WeightsError::Format { label: index.display().to_string(), reason };
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(index, e))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let folder = index.parent().unwrap_or(Path::new("."));
    names
        .into_iter()
        .map(|name| {
            // A shard is a file beside its index; a path that leaves the folder is not one.
            let plain = Path::new(&name).file_name().is_some_and(|f| f == name.as_str());
            if plain {
                Ok(folder.join(name))
            } else {
                Err(format(format!("shard `{name}` is not a plain file name")).into())
            }
        })
        .collect()
}

impl std::fmt::Debug for WeightSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WeightSet({}, {} tensors)", self.label, self.tensors.len())
    }
}
