use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;
use wan_core::{Error, Result};

/// Key of the metadata under which ComfyUI's files say how each layer is stored. It is that of the input and would be
/// wrong, and ComfyUI believes it before the marker of a scaled file.
///
/// Source: ComfyUI `comfy/utils.py`, convert_old_quants.
const QUANTISATION: &str = "_quantization_metadata";

/// One tensor of a file to be written.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// A safetensors file that appears under its name when it is complete.
pub(crate) struct Output {
    file: BufWriter<NamedTempFile>,
    written: u64,
    expected: u64,
}

impl Output {
    /// Writes the header of `slots`, whose data must follow in their order.
    pub fn create(path: &Path, metadata: &HashMap<String, String>, slots: &[Slot]) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut header = Map::new();
        let kept = metadata.iter().filter(|(key, _)| key.as_str() != QUANTISATION);
        let sorted: std::collections::BTreeMap<_, _> = kept.collect();
        header.insert("__metadata__".into(), json!(sorted));
        let mut at = 0u64;
        for slot in slots {
            let range = [at, at + slot.bytes];
            header.insert(
                slot.name.clone(),
                json!({"dtype": slot.dtype, "shape": slot.shape, "data_offsets": range}),
            );
            at += slot.bytes;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The umask is applied on top, as for any other new file.
        let mode = Permissions::from_mode(0o666);
        let mut file =
            BufWriter::new(tempfile::Builder::new().permissions(mode).tempfile_in(folder).map_err(io)?);
        file.write_all(&(text.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&text).map_err(io)?;
        Ok(Self { file, written: 0, expected: at })
    }

    /// Appends tensor data.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| Error::io(path, e))
    }

    /// Puts the file in its place.
    pub fn finish(self, path: &Path, overwrite: bool) -> Result<()> {
        let io = |e| Error::io(path, e);
        assert_eq!(self.written, self.expected, "data do not fill the header's offsets");
        let file = self.file.into_inner().map_err(|e| io(e.into_error()))?;
        file.as_file().sync_all().map_err(io)?;
        let placed = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
        placed.map(drop).map_err(|e| io(e.error))
    }
}
