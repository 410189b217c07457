use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::stored::{Bytes, Stored};
use crate::{Error, Result, WeightsError};

/// The tensors of one component, mapped from one file or a sharded set, under the names in the files.
#[derive(Clone)]
pub struct WeightSet {
    label: String,
    pub(super) tensors: BTreeMap<String, Stored>,
    metadata: HashMap<String, String>,
}

impl WeightSet {
    /// Opens a `.safetensors` file, the index JSON of a sharded set, or a folder that holds either.
    ///
    /// Reads headers only; the data stay in the file, mapped.
    ///
    /// Errors: [`Error::Io`], or [`WeightsError::Format`] for a damaged or truncated file.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let files = files_of(path)?;
        let mut set = Self { label, tensors: BTreeMap::new(), metadata: HashMap::new() };
        for file in files {
            set.add(map(&file)?, &file.display().to_string())?;
        }
        Ok(set)
    }

    /// A set over bytes in memory, such as the embedded model's.
    pub fn from_bytes(label: impl Into<String>, bytes: Bytes) -> Result<Self> {
        let label = label.into();
        let mut set = Self { label: label.clone(), tensors: BTreeMap::new(), metadata: HashMap::new() };
        set.add(bytes, &label)?;
        Ok(set)
    }

    /// A set of tensors made in memory.
    pub fn from_tensors(label: impl Into<String>, tensors: impl IntoIterator<Item = Stored>) -> Self {
        let tensors = tensors.into_iter().map(|t| (t.name().to_string(), t)).collect();
        Self { label: label.into(), tensors, metadata: HashMap::new() }
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
            .map_or(0, |n| n + 1)
    }

    pub(super) fn with_tensors(&self, tensors: BTreeMap<String, Stored>) -> Self {
        Self { label: self.label.clone(), tensors, metadata: self.metadata.clone() }
    }

    fn add(&mut self, bytes: Bytes, label: &str) -> Result<()> {
        let format = |reason: String| WeightsError::Format { label: label.to_string(), reason };
        let data = bytes.as_slice();
        let (_, header) = SafeTensors::read_metadata(data).map_err(|e| format(e.to_string()))?;
        let parsed = SafeTensors::deserialize(data).map_err(|e| format(e.to_string()))?;
        if let Some(metadata) = header.metadata() {
            self.metadata.extend(metadata.clone());
        }
        for (name, view) in parsed.iter() {
            let dtype = dtype(view.dtype()).ok_or_else(|| WeightsError::Dtype {
                label: label.to_string(),
                name: name.to_string(),
                found: format!("{:?}", view.dtype()),
                expected: "F32, F64, BF16, F16, F8_E4M3 or an integer dtype".into(),
            })?;
            let start = view.data().as_ptr().addr() - data.as_ptr().addr();
            let slice = bytes.slice(start..start + view.data().len());
            let stored = Stored::new(name, dtype, view.shape().to_vec(), slice)?;
            if self.tensors.insert(name.to_string(), stored).is_some() {
                return Err(format(format!("tensor {name} is in two files of the set")).into());
            }
        }
        Ok(())
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
        if let Some(index) = entries.iter().find(|p| ends(p, ".safetensors.index.json")) {
            return shards(index);
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
