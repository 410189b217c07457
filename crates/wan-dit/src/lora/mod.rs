//! LoRA files: additions to a model's weights, kept beside them.
//!
//! A file's tensors are sorted by module whatever their naming, checked against the model's shapes and become
//! [`Deltas`]: a matrix gets a branch that is computed beside it, so that FP8 weights are not rounded again; a
//! norm, bias or modulation is changed when it is loaded.
//!
//! Source: "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685); for names and factors ComfyUI
//! `comfy/lora.py`, `comfy/weight_adapter/lora.py`, and diffusers `loaders/lora_conversion_utils.py`.

mod blocks;
mod key;

use std::collections::BTreeMap;

use candle_core::DType;
use wan_core::{Delta, Deltas, Error, Result, Stored, WeightSet};

pub use blocks::BlockSelection;
use key::{Key, Modules, Part, block_of};

use crate::names::canonical;

/// A LoRA file and how much of it is wanted.
#[derive(Debug, Clone)]
pub struct Lora {
    /// Its tensors, in any known naming.
    pub weights: WeightSet,
    /// Factor on everything in it; 0 is as good as no file.
    pub strength: f32,
    /// Blocks that it may change; `None` for all. What lies outside of the blocks it changes always.
    pub blocks: Option<BlockSelection>,
}

/// What became of the tensors of a LoRA file. Every one is counted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraReport {
    /// The file.
    pub label: String,
    /// Tensors that take effect.
    pub applied: usize,
    /// Tensors left out by the selection of blocks.
    pub left_out: usize,
    /// Names of tensors that the model has no place for.
    pub skipped: Vec<String>,
}

impl std::fmt::Display for LoraReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 3;
        write!(f, "lora {}: {} tensors applied", self.label, self.applied)?;
        if self.left_out > 0 {
            write!(f, ", {} left out by blocks=", self.left_out)?;
        }
        if let Some(first) = self.skipped.get(..SHOWN.min(self.skipped.len())).filter(|s| !s.is_empty()) {
            let more = if self.skipped.len() > SHOWN { ", …" } else { "" };
            let (count, first) = (self.skipped.len(), first.join(", "));
            write!(f, ", {count} skipped that this model has no place for: {first}{more}")?;
        }
        Ok(())
    }
}

impl LoraReport {
    /// Checks `loras` against the DiT `weights` (any supported naming) from headers alone.
    ///
    /// Errors: those of [`crate::Dit::open_with_loras`].
    pub fn of(weights: &WeightSet, loras: &[Lora]) -> Result<Vec<Self>> {
        Ok(resolve(&canonical(weights)?, loras)?.1)
    }
}

/// The tensors of one module in one file.
#[derive(Default)]
struct Group<'a>(BTreeMap<Part, &'a Stored>);

/// What `loras` change of `weights` (canonical names), and one report per file.
pub(crate) fn resolve(weights: &WeightSet, loras: &[Lora]) -> Result<(Deltas, Vec<LoraReport>)> {
    let mut deltas = Deltas::default();
    if loras.is_empty() {
        return Ok((deltas, Vec::new()));
    }
    let modules = Modules::new(weights);
    let reports =
        loras.iter().map(|lora| lora.resolve(weights, &modules, &mut deltas)).collect::<Result<_>>()?;
    Ok((deltas, reports))
}

impl Lora {
    fn resolve(&self, weights: &WeightSet, modules: &Modules, deltas: &mut Deltas) -> Result<LoraReport> {
        if !self.strength.is_finite() {
            return Err(self.wrong(self.strength, "a finite strength"));
        }
        let count = weights.count("blocks");
        if let Some(blocks) = self.blocks.as_ref().filter(|b| b.last() >= count) {
            return Err(
                self.wrong(format!("blocks {blocks}"), format!("blocks 0 to {}", count.saturating_sub(1)))
            );
        }
        let label = self.weights.label().to_string();
        let mut report = LoraReport { label, applied: 0, left_out: 0, skipped: Vec::new() };
        let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
        for stored in self.weights.iter() {
            let name = stored.name();
            let found = match Key::parse(name) {
                Key::Part(module, part) => modules.find(&module).map(|module| (module, part)),
                Key::Refused(method) => {
                    let expected = format!("low-rank products and differences: {method} cannot be applied");
                    return Err(self.wrong(format!("tensor {name}"), expected));
                }
                Key::Unknown => None,
            };
            let Some((module, part)) = found else {
                report.skipped.push(name.to_string());
                continue;
            };
            if let (Some(blocks), Some(block)) = (&self.blocks, block_of(module))
                && !blocks.contains(block)
            {
                report.left_out += 1;
                continue;
            }
            if let Some(other) = groups.entry(module).or_default().0.insert(part, stored) {
                let found = format!("both {} and {name}", other.name());
                return Err(self.wrong(found, format!("one tensor for {module}")));
            }
        }
        for (module, group) in groups {
            self.add(module, &group, weights, deltas, &mut report)?;
        }
        if report.applied == 0 {
            let first = report.skipped.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let found = match (report.left_out, first.is_empty()) {
                (0, true) => "no tensors".into(),
                (0, false) => format!("only {first}, …"),
                (n, _) => format!("nothing in the chosen blocks and {n} tensors outside of them"),
            };
            return Err(self.wrong(found, "low-rank products or differences for this model's modules"));
        }
        Ok(report)
    }

    /// Adds one module's changes.
    fn add(
        &self,
        module: &str,
        Group(parts): &Group<'_>,
        weights: &WeightSet,
        deltas: &mut Deltas,
        report: &mut LoraReport,
    ) -> Result<()> {
        let part = |part: Part| parts.get(&part).copied();
        let mut add = |name: String, delta: Delta, tensors: usize| {
            report.applied += tensors;
            if self.strength != 0.0 {
                deltas.add(name, delta);
            }
        };
        let named = |suffix: &str| {
            let name = format!("{module}{suffix}");
            weights.get(&name).map(|stored| (name, stored))
        };
        let weight = || named(".weight").or_else(|| named(""));
        let mut skipped = Vec::new();

        let mut factor = 1.0;
        match (part(Part::Down), part(Part::Up)) {
            (Some(down), Some(up)) => match weight() {
                Some((_, target)) if other_channels(module, target, down.shape()) => {
                    skipped.extend([down, up])
                }
                Some((name, target)) => {
                    let rank = self.check_pair(target, &name, down, up)?;
                    if let Some(alpha) = part(Part::Alpha) {
                        factor = self.alpha(alpha)? / rank as f32;
                    }
                    let scale = self.strength * factor;
                    let delta = Delta::LowRank { down: self.float(down)?, up: self.float(up)?, scale };
                    add(name, delta, 2 + usize::from(part(Part::Alpha).is_some()));
                }
                None => skipped.extend([down, up]),
            },
            (None, None) => {}
            (Some(one), None) | (None, Some(one)) => {
                return Err(self.wrong(format!("{} alone", one.name()), "both factors of its product"));
            }
        }
        if part(Part::Down).is_none() || !skipped.is_empty() {
            skipped.extend(part(Part::Alpha));
        }
        let singles = [
            (Part::Diff, weight(), 1.0),
            (Part::DiffBias, named(".bias"), 1.0),
            (Part::UpBias, named(".bias"), factor),
            (Part::DiffModulation, named(".modulation"), 1.0),
        ];
        for (kind, target, factor) in singles {
            let Some(diff) = part(kind) else { continue };
            match target {
                Some((_, target)) if kind == Part::Diff && other_channels(module, target, diff.shape()) => {
                    skipped.push(diff);
                }
                Some((name, target)) => {
                    self.check_diff(target, &name, diff)?;
                    let scale = self.strength * factor;
                    add(name, Delta::Full { diff: self.float(diff)?, scale }, 1);
                }
                None => skipped.push(diff),
            }
        }
        report.skipped.extend(skipped.into_iter().map(|s| s.name().to_string()));
        Ok(())
    }

    /// Checks that `up down` has the shape of the weight, as matrices; returns the rank.
    fn check_pair(&self, target: &Stored, name: &str, down: &Stored, up: &Stored) -> Result<usize> {
        let matrix = |shape: &[usize]| match *shape {
            [rows, ref rest @ ..] if !rest.is_empty() => Some((rows, rest.iter().product::<usize>())),
            _ => None,
        };
        match (matrix(target.shape()), matrix(down.shape()), matrix(up.shape())) {
            (Some(w), Some((rank, inputs)), Some((outputs, other)))
                if rank > 0 && rank == other && w == (outputs, inputs) =>
            {
                Ok(rank)
            }
            _ => {
                let found = format!("{} {:?} and {} {:?}", down.name(), down.shape(), up.name(), up.shape());
                Err(self.wrong(found, format!("factors of {name} {:?}", target.shape())))
            }
        }
    }

    fn check_diff(&self, target: &Stored, name: &str, diff: &Stored) -> Result<()> {
        let long_axes = |s: &[usize]| s.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if long_axes(diff.shape()) == long_axes(target.shape()) {
            return Ok(());
        }
        let found = format!("{} {:?}", diff.name(), diff.shape());
        Err(self.wrong(found, format!("the shape of {name} {:?}", target.shape())))
    }

    fn alpha(&self, alpha: &Stored) -> Result<f32> {
        let values = self.float(alpha)?.to_f32_vec()?;
        match values[..] {
            [value] if value.is_finite() => Ok(value),
            _ => Err(self.wrong(format!("{} {values:?}", alpha.name()), "one finite number")),
        }
    }

    /// The tensor, if it is one of floats.
    fn float(&self, stored: &Stored) -> Result<Stored> {
        match stored.dtype() {
            DType::F32 | DType::F64 | DType::BF16 | DType::F16 | DType::F8E4M3 => Ok(stored.clone()),
            other => Err(self.wrong(format!("{} of dtype {other:?}", stored.name()), "a float dtype")),
        }
    }

    fn wrong(&self, found: impl std::fmt::Display, expected: impl Into<String>) -> Error {
        Error::invalid(format!("lora {}", self.weights.label()), found, expected)
    }
}

/// Whether `change`, of the patch embedding, was made for another number of input channels: text-to-video LoRAs are
/// used on image-to-video models, which lack nothing else.
fn other_channels(module: &str, target: &Stored, change: &[usize]) -> bool {
    module == "patch_embedding"
        && change.len() == target.shape().len()
        && change.get(1) != target.shape().get(1)
        && change[2..] == target.shape()[2..]
}
