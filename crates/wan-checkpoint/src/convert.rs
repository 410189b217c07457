use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;
use wan_core::progress::CancelToken;
use wan_core::weights::Scale;
use wan_core::{Error, Result, Stored, WeightSet};

use crate::quantise::{Rounding, blocks, scale, to_bf16, to_f8};
use crate::write::{Output, Slot};
use crate::{Component, identify};

/// Dtype of a converted file's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// FP8 (e4m3fn) by plain rounding.
    Fp8,
    /// FP8 with a scale for every matrix, or for every one of its rows.
    Fp8Scaled(ScaleUnit),
    /// bf16, for all floats.
    Bf16,
}

/// What shares one scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleUnit {
    /// A matrix: what other programs read too.
    Tensor,
    /// A row, that is an output: a smaller error; known to this program only.
    Row,
}

/// How to convert.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// Target dtype.
    pub target: Target,
    /// Replace an existing output.
    pub overwrite: bool,
}

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Name in the file.
    pub name: String,
    /// Dtype before.
    pub from: &'static str,
    /// Dtype after.
    pub to: &'static str,
    /// `|new - old|_2 / |old|_2`.
    pub relative_error: f64,
    /// Largest absolute difference.
    pub largest_error: f32,
}

/// What a conversion did.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The component.
    pub component: Component,
    /// Every tensor whose dtype changed, in the file's order.
    pub changed: Vec<TensorReport>,
    /// Tensors copied as they were.
    pub copied: usize,
    /// Tensors left out, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// Rewrites the checkpoint `input` as the safetensors file `output`, under the names it has.
///
/// Streams: one block of one tensor is in memory at a time. FP8 targets round the matrices of the blocks (and a
/// DiT's text embedding) and copy everything else, as the published FP8 files do; the output appears when it is
/// complete.
///
/// - `progress`: called with each tensor's report as it is done, and its index and their number
///
/// Errors: those of [`WeightSet::open`]; [`Error::Invalid`] for a file of no known component, for one without
/// matrices to round or with values that are not finite, and for an existing output; [`Error::Cancelled`]; [`Error::Io`].
pub fn convert(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
    cancel: &CancelToken,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Converted> {
    if output.exists() && !options.overwrite {
        let found = format!("{} exists", output.display());
        return Err(Error::invalid("output", found, "a new file, or overwriting allowed"));
    }
    if output.is_dir() {
        return Err(Error::invalid("output", format!("the folder {}", output.display()), "a file's name"));
    }
    let weights = WeightSet::open(input)?;
    let Some(identity) = identify(&weights) else {
        return Err(Error::invalid(
            weights.label(),
            "tensors of no known component",
            "a DiT, text encoder, image encoder or VAE of a Wan model",
        ));
    };
    let component = identity.component;
    let (canonical, _) = weights.canonical(&component.to_string(), component.dialects())?;
    // Under which names the model knows the tensors of the file; of a fused one, the first part's.
    let roles: HashMap<&str, &str> =
        canonical.names().zip(canonical.iter()).map(|(role, stored)| (stored.name(), role)).collect();
    let joined = weights.with_scales()?;
    let mut jobs = Vec::new();
    let mut left_out = canonical.unused().to_vec();
    for stored in joined.iter() {
        // What is not a float is small and may be of use to others, such as a tokenizer.
        let role = roles.get(stored.name()).copied();
        if role.is_none() && stored.is_float() {
            continue;
        }
        left_out.retain(|(name, _)| name != stored.name());
        jobs.push(Job { stored, action: action(component, role, stored, options.target) });
    }
    let rounds = |j: &&Job<'_>| matches!(j.action, Action::Fp8 | Action::Fp8Scaled(_));
    if options.target != Target::Bf16 && jobs.iter().filter(rounds).count() == 0 {
        let already = jobs.iter().any(|job| job.stored.dtype() == DType::F8E4M3);
        let why = if already { "whose matrices are FP8 already" } else { "without matrices to round" };
        let found = format!("a {component} {why}");
        return Err(Error::invalid(weights.label(), found, "a component with linear layers, or bf16"));
    }
    // Wide dtypes first, so that all data are aligned; the scales, of four bytes, at their place.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.width()));
    let wider = jobs.partition_point(|job| job.width() > 4);
    let scales: Vec<(String, Scale)> = jobs.iter().filter_map(Job::scale).collect();
    let marker = (!scales.is_empty()).then(|| marker(&jobs, &roles));
    let mut slots: Vec<Slot> = jobs[..wider].iter().map(Job::slot).collect();
    slots.extend(scales.iter().map(|(name, scale)| scale_slot(name, scale)));
    slots.extend(jobs[wider..].iter().map(Job::slot));
    slots.extend(marker.map(|name| Slot { name, dtype: "F8_E4M3", shape: vec![0], bytes: 0 }));

    let mut file = Output::create(output, weights.metadata(), &slots)?;
    let by_name: HashMap<&str, &Scale> = scales.iter().map(|(name, scale)| (name.as_str(), scale)).collect();
    let (mut changed, mut copied) = (Vec::new(), 0);
    for (index, job) in jobs.iter().enumerate() {
        if index == wider {
            write_scales(&scales, output, &mut file)?;
        }
        progress(index, jobs.len(), job.stored.name());
        match job.run(by_name.get(job.scale_name().as_str()).copied(), output, &mut file, cancel)? {
            Some(report) => changed.push(report),
            None => copied += 1,
        }
    }
    file.finish(output, options.overwrite)?;
    Ok(Converted { component, changed, copied, left_out })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Copy,
    Bf16,
    Fp8,
    Fp8Scaled(ScaleUnit),
}

struct Job<'a> {
    stored: &'a Stored,
    action: Action,
}

impl Job<'_> {
    fn dtype(&self) -> &'static str {
        match self.action {
            Action::Copy => self.stored.dtype_name(),
            Action::Bf16 => "BF16",
            Action::Fp8 | Action::Fp8Scaled(_) => "F8_E4M3",
        }
    }

    fn width(&self) -> usize {
        match self.action {
            Action::Copy => self.stored.dtype().size_in_bytes(),
            Action::Bf16 => 2,
            Action::Fp8 | Action::Fp8Scaled(_) => 1,
        }
    }

    fn slot(&self) -> Slot {
        let bytes = (self.stored.elements() * self.width()) as u64;
        Slot {
            name: self.stored.name().into(),
            dtype: self.dtype(),
            shape: self.stored.shape().to_vec(),
            bytes,
        }
    }

    fn scale_name(&self) -> String {
        let name = self.stored.name();
        format!("{}.scale_weight", name.strip_suffix(".weight").unwrap_or(name))
    }

    /// The scale to be stored beside the tensor: a new one, or the one it has.
    fn scale(&self) -> Option<(String, Scale)> {
        let scale = match self.action {
            Action::Fp8Scaled(unit) => scale(self.stored, unit == ScaleUnit::Row),
            Action::Copy => self.stored.scale()?.clone(),
            _ => return None,
        };
        Some((self.scale_name(), scale))
    }

    /// Writes the tensor's data; reports what was lost unless it was copied.
    fn run(
        &self,
        scale: Option<&Scale>,
        path: &Path,
        file: &mut Output,
        cancel: &CancelToken,
    ) -> Result<Option<TensorReport>> {
        let rows = self.stored.shape().first().copied().unwrap_or(1).max(1);
        let row = (self.stored.elements() / rows).max(1);
        let (mut bytes, mut rounding) = (Vec::new(), Rounding::default());
        if self.action == Action::Copy {
            for part in self.stored.bytes().chunks(1 << 20) {
                cancel.check()?;
                file.write(path, part)?;
            }
            return Ok(None);
        }
        let by_rows = matches!(scale, Some(Scale::Rows(_)));
        blocks(self.stored, by_rows.then_some(row), |at, values| {
            cancel.check()?;
            bytes.clear();
            match (self.action, scale) {
                (Action::Bf16, _) => to_bf16(values, &mut bytes, &mut rounding),
                (_, Some(Scale::Tensor(factor))) => to_f8(values, *factor, &mut bytes, &mut rounding),
                (_, Some(Scale::Rows(factors))) => {
                    to_f8(values, factors[at / row], &mut bytes, &mut rounding)
                }
                (_, None) => to_f8(values, 1.0, &mut bytes, &mut rounding),
            }
            file.write(path, &bytes)
        })?;
        if !rounding.error.is_finite() {
            let subject = format!("tensor {}", self.stored.name());
            let found = format!("values that are NaN, infinite or too large for {}", self.dtype());
            return Err(Error::invalid(subject, found, "finite values; the input may be damaged"));
        }
        Ok(Some(TensorReport {
            name: self.stored.name().to_string(),
            from: self.stored.dtype_name(),
            to: self.dtype(),
            relative_error: rounding.relative(),
            largest_error: rounding.largest,
        }))
    }
}

/// What to do with a tensor. `role` is its canonical name.
fn action(component: Component, role: Option<&str>, stored: &Stored, target: Target) -> Action {
    let plain = stored.is_plain();
    if !stored.is_float() {
        return Action::Copy;
    }
    let matrix = role.is_some_and(|role| is_block_matrix(component, role, stored.shape()));
    match target {
        Target::Bf16 if plain && stored.dtype() == DType::BF16 => Action::Copy,
        Target::Bf16 => Action::Bf16,
        Target::Fp8 if matrix && plain && stored.dtype() == DType::F8E4M3 => Action::Copy,
        Target::Fp8 if matrix => Action::Fp8,
        // Rounding FP8 codes to FP8 codes of another scale would only lose.
        Target::Fp8Scaled(_) if stored.dtype() == DType::F8E4M3 => Action::Copy,
        Target::Fp8Scaled(unit) if matrix => Action::Fp8Scaled(unit),
        Target::Fp8 | Target::Fp8Scaled(_) if plain => Action::Copy,
        Target::Fp8 | Target::Fp8Scaled(_) => Action::Bf16,
    }
}

/// Whether an FP8 file rounds the tensor: the linear layers of the blocks, which are nearly all of the weights.
fn is_block_matrix(component: Component, role: &str, shape: &[usize]) -> bool {
    let within: &[&str] = match component {
        Component::Dit => &[".self_attn.", ".cross_attn.", ".ffn.", "text_embedding."],
        Component::TextEncoder => &[".attn.", ".ffn."],
        Component::ImageEncoder => &[".attn.", ".mlp."],
        Component::Vae => return false,
    };
    shape.len() == 2 && role.ends_with(".weight") && within.iter().any(|w| role.contains(w))
}

/// The marker by which ComfyUI knows a scaled file, under the prefix that the file's names have.
fn marker(jobs: &[Job<'_>], roles: &HashMap<&str, &str>) -> String {
    let prefix = jobs.iter().find_map(|job| job.stored.name().strip_suffix(roles.get(job.stored.name())?));
    format!("{}scaled_fp8", prefix.unwrap_or_default())
}

fn write_scales(scales: &[(String, Scale)], path: &Path, file: &mut Output) -> Result<()> {
    for (_, scale) in scales {
        let bytes: Vec<u8> = factors(scale).iter().flat_map(|f| f.to_le_bytes()).collect();
        file.write(path, &bytes)?;
    }
    Ok(())
}

fn factors(scale: &Scale) -> &[f32] {
    match scale {
        Scale::Tensor(factor) => std::slice::from_ref(factor),
        Scale::Rows(factors) => factors,
    }
}

fn scale_slot(name: &str, scale: &Scale) -> Slot {
    let shape = match scale {
        Scale::Tensor(_) => vec![],
        Scale::Rows(factors) => vec![factors.len()],
    };
    Slot { name: name.to_string(), dtype: "F32", shape, bytes: factors(scale).len() as u64 * 4 }
}
