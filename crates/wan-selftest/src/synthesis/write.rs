//! A whole model on disk: one safetensors file a component, the tokenizer, and the description that `--model` takes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde_json::{Map, json};
use wan_core::Error;
use wan_models::{FileEntry, ModelFiles, Places, Registry, Source};
use wan_pipeline::Result;

use super::{Layout, Maker, TensorSpec};

/// The model of this description is imitated.
const PUBLISHED: &str = "wan2.1-i2v-14b-480p-fp8";
/// Bytes that a thread makes before it writes them.
const PIECE: usize = 8 << 20;

/// Dimensions of a synthetic model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSize {
    /// The published 14B model with FP8 matrices, UMT5-XXL, CLIP ViT-H/14, and the VAE: 30 GB.
    Full,
    /// The embedded model's.
    Tiny,
}

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct Synthesis {
    /// Dimensions.
    pub size: ModelSize,
    /// Seed of every value.
    pub seed: u64,
    /// Blocks of the DiT, UMT5 and CLIP, where fewer than the model has are wanted.
    pub blocks: Option<usize>,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The description: what `--model` takes.
    pub description: PathBuf,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Time taken.
    pub took: Duration,
}

/// Writes a model into `folder`, which is created. The same settings give the same bytes.
///
/// Errors: input/output errors of the folder.
pub fn synthesize(folder: &Path, synthesis: &Synthesis) -> Result<Written> {
    let start = Instant::now();
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let registry = Registry::builtin()?;
    let tiny = registry.resolve(&registry.find("tiny")?, &Places::default())?;
    let layouts = match synthesis.size {
        ModelSize::Full => {
            [Layout::dit()?, Layout::vae()?, Layout::text_encoder()?, Layout::image_encoder()?]
        }
        ModelSize::Tiny => tiny_layouts(&tiny)?,
    };
    let names = ["dit", "vae", "text_encoder", "image_encoder"];
    let mut bytes = 0;
    for (name, layout) in names.iter().zip(layouts) {
        let layout = match synthesis.blocks {
            Some(blocks) => layout.with_blocks(blocks),
            None => layout,
        };
        bytes += write(&folder.join(format!("{name}.safetensors")), &layout, synthesis.seed)?;
    }
    let tokenizer = folder.join("tokenizer.json");
    fs::write(&tokenizer, tiny.tokenizer.read()?).map_err(|e| Error::io(&tokenizer, e))?;
    Ok(Written { description: describe(folder, synthesis.size)?, bytes, took: start.elapsed() })
}

/// The layouts of the embedded model, in the order of the files.
fn tiny_layouts(tiny: &ModelFiles) -> Result<[Layout; 4]> {
    let layout = |source: &Source| Ok::<_, Error>(Layout::of(&source.weights()?));
    let image = tiny.image_encoder.as_ref().unwrap_or(&tiny.dit);
    Ok([layout(&tiny.dit)?, layout(&tiny.vae)?, layout(&tiny.text_encoder)?, layout(image)?])
}

/// The description, as that of the model that is imitated, with the files of the folder.
fn describe(folder: &Path, size: ModelSize) -> Result<PathBuf> {
    let like = if size == ModelSize::Full { PUBLISHED } else { "tiny" };
    let mut model = Registry::builtin()?.find(like)?;
    let entry = |path: &str| FileEntry {
        path: path.into(),
        repo: None,
        folder: None,
        bytes: None,
        sha256: None,
        also: Vec::new(),
        embedded: false,
        parts: Vec::new(),
    };
    model.name = format!("synthetic-{like}");
    model.summary = format!("{like} with random weights");
    model.files.dit = entry("dit.safetensors");
    model.files.vae = entry("vae.safetensors");
    model.files.text_encoder = entry("text_encoder.safetensors");
    model.files.image_encoder = Some(entry("image_encoder.safetensors"));
    model.files.tokenizer = entry("tokenizer.json");
    let text = toml::to_string(&model)
        .map_err(|e| Error::invalid("description of the synthetic model", e, "one that TOML can hold"))?;
    let path = folder.join("model.toml");
    fs::write(&path, text).map_err(|e| Error::io(&path, e))?;
    Ok(path)
}

/// One file, under its name once it is whole. Returns the bytes of its tensors.
fn write(path: &Path, layout: &Layout, seed: u64) -> Result<u64> {
    let fail = |e| Error::io(path, e);
    let partial = path.with_extension("partial");
    let file = File::create(&partial).map_err(fail)?;
    let (header, begin) = header(layout);
    file.write_all_at(&header, 0).map_err(fail)?;
    let mut offset = begin;
    let mut pieces = Vec::new();
    let mut makers = Vec::new();
    for spec in &layout.tensors {
        let row = (spec.rows().1 * spec.dtype.size_in_bytes()).max(1);
        let rows = PIECE.div_ceil(row);
        for first in (0..spec.rows().0).step_by(rows) {
            let bytes = rows.min(spec.rows().0 - first) * row;
            pieces.push((makers.len(), first, bytes, offset + (first * row) as u64));
        }
        makers.push(spec);
        offset += spec.bytes() as u64;
    }
    file.set_len(offset).map_err(fail)?;
    let makers = makers.into_par_iter().map(|spec| Maker::new(spec, seed)).collect::<Result<Vec<_>, _>>()?;
    pieces
        .into_par_iter()
        .try_for_each(|(maker, first, bytes, at)| {
            let mut piece = vec![0; bytes];
            makers[maker].fill(first, &mut piece);
            file.write_all_at(&piece, at)
        })
        .map_err(fail)?;
    fs::rename(&partial, path).map_err(fail)?;
    Ok(offset - begin)
}

/// The header of a safetensors file, and where the data begin.
fn header(layout: &Layout) -> (Vec<u8>, u64) {
    let mut entries = Map::new();
    if !layout.metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(layout.metadata.iter().collect::<BTreeMap<_, _>>()));
    }
    let mut offset = 0;
    for spec in &layout.tensors {
        let end = offset + spec.bytes();
        let entry = json!({"dtype": dtype_name(spec), "shape": spec.shape, "data_offsets": [offset, end]});
        entries.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    let begin = bytes.len() as u64;
    (bytes, begin)
}

fn dtype_name(spec: &TensorSpec) -> &'static str {
    use candle_core::DType;
    match spec.dtype {
        DType::F8E4M3 => "F8_E4M3",
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    }
}
