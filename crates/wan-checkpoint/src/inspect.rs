use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use wan_core::weights::Scale;
use wan_core::{Result, WeightSet, WeightsError};

use crate::component::is_lora;
use crate::{Component, identify};

/// Tensors of one stored dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DtypeCount {
    /// Name as in safetensors or GGUF, such as `F8_E4M3`.
    pub dtype: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub values: u64,
}

/// What a checkpoint holds.
#[derive(Debug, Clone)]
pub struct Report {
    /// The component.
    pub component: Component,
    /// Container, naming and quantisation, such as `safetensors, original naming, FP8 scaled per tensor`.
    pub layout: String,
    /// Number of files.
    pub files: usize,
    /// What is stored, the dtype with most values first.
    pub dtypes: Vec<DtypeCount>,
    /// Values of the tensors that the model uses.
    pub parameters: u64,
    /// Hyper-parameters, one line.
    pub configuration: String,
    /// Tensors the model has no use for, and why.
    pub unused: Vec<(String, &'static str)>,
    /// What keeps the file from being used: missing, unexpected and misshapen tensors, or a bad configuration.
    pub problem: Option<String>,
}

/// Describes the checkpoint at `path`: a file, an index, or a folder, as for [`WeightSet::open`].
///
/// Reads headers and the small tensors.
///
/// Errors: those of [`WeightSet::open`]; [`WeightsError::Format`] for weights of no known component.
pub fn inspect(path: &Path) -> Result<Report> {
    let weights = WeightSet::open(path)?;
    let Some(identity) = identify(&weights) else {
        let first: Vec<&str> = weights.names().take(3).collect();
        let what = if is_lora(&weights) { "a LoRA" } else { "no component of a Wan model" };
        let reason = format!("this is {what} ({} tensors: {}, …)", weights.iter().count(), first.join(", "));
        return Err(WeightsError::Format { label: weights.label().to_string(), reason }.into());
    };
    let (canonical, _) = weights.canonical(&identity.component.to_string(), identity.component.dialects())?;
    let opened = open(identity.component, &weights);
    let (configuration, problem) = match opened {
        Ok(configuration) => (configuration, None),
        Err(error) => ("unknown".to_string(), Some(error.to_string())),
    };
    Ok(Report {
        component: identity.component,
        layout: layout(&weights, &canonical, identity.dialect.name),
        files: weights.files(),
        dtypes: dtypes(&weights),
        parameters: canonical.iter().map(|t| t.elements() as u64).sum(),
        configuration,
        unused: canonical.unused().to_vec(),
        problem,
    })
}

/// Opens the component over mapped weights, which resolves every tensor, and tells its configuration.
fn open(component: Component, weights: &WeightSet) -> Result<String> {
    let (device, dtype) = (Device::Cpu, DType::F32);
    Ok(match component {
        Component::Dit => describe(wan_dit::Dit::open(weights, None, &device, dtype)?.config()),
        Component::TextEncoder => describe(wan_umt5::Umt5::open(weights, None, &device, dtype)?.config()),
        Component::ImageEncoder => {
            describe(wan_clip::ClipVision::open(weights, None, &device, dtype)?.config())
        }
        Component::Vae => describe(&wan_vae::Vae::open(weights, None, &device, dtype)?.config),
    })
}

/// `key value, key value, …` of a configuration struct.
fn describe(config: &impl std::fmt::Debug) -> String {
    let text = format!("{config:?}");
    let inner =
        text.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or(text.as_str(), |p| p.0);
    let fields = inner.trim().split(", ").map(|field| match field.split_once(": Some(") {
        Some((key, value)) => format!("{key}: {}", value.trim_end_matches(')')),
        None => field.replace(": None", ": none"),
    });
    fields.collect::<Vec<_>>().join(", ")
}

fn layout(weights: &WeightSet, canonical: &WeightSet, naming: &str) -> String {
    let scales =
        |rows: bool| canonical.iter().any(|t| t.scale().is_some_and(|s| matches!(s, Scale::Rows(_)) == rows));
    let quantisation = match (scales(true), scales(false)) {
        (true, _) => ", FP8 scaled per row",
        (_, true) => ", FP8 scaled per tensor",
        _ if canonical.iter().any(|t| t.dtype() == DType::F8E4M3) => ", FP8 without scales",
        _ => "",
    };
    format!("{}, {naming} naming{quantisation}", weights.container())
}

fn dtypes(weights: &WeightSet) -> Vec<DtypeCount> {
    let mut counts: BTreeMap<&'static str, (usize, u64)> = BTreeMap::new();
    for stored in weights.iter() {
        let count = counts.entry(stored.dtype_name()).or_default();
        count.0 += 1;
        count.1 += stored.elements() as u64;
    }
    let mut counts: Vec<DtypeCount> =
        counts.into_iter().map(|(dtype, (tensors, values))| DtypeCount { dtype, tensors, values }).collect();
    counts.sort_by_key(|c| std::cmp::Reverse(c.values));
    counts
}
