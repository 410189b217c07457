//! A denoising run that stopped, as a file: everything the remaining steps depend on.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use wan_core::device::to_host;
use wan_core::{Stored, WeightSet};
use wan_sampler::{RngState, SamplerState, SchedulerKind};

use crate::condition::Conditioning;
use crate::{PipelineError, Plan, Request, Result};

/// Where a denoising run stands after some step.
#[derive(Debug, Clone)]
pub struct DenoiseState {
    /// Sample at the present sigma: `[1, 16, F, h, w]` f32.
    pub latents: Tensor,
    /// Solver history and steps taken.
    pub sampler: SamplerState,
    /// Noise generator.
    pub rng: RngState,
    /// Where the next step reuses what the DiT's blocks added in an earlier one: that one's sample, `[1, 16, F, h, w]`
    /// f32, from which it is made again.
    pub reused_from: Option<Tensor>,
}

/// A job that is ready to denoise, or somewhere on its way.
#[derive(Debug, Clone)]
pub struct Job {
    /// What follows from the request.
    pub plan: Plan,
    /// Conditioning tensors; with them in hand neither the image nor the encoders are needed any more.
    pub conditioning: Conditioning,
    /// Where the run stands.
    pub state: DenoiseState,
}

/// A job as kept in a resume file.
#[derive(Debug, Clone)]
pub struct SavedJob {
    /// The job.
    pub job: Job,
    /// Name of its model.
    pub model: String,
    /// The caller's own data, such as where the video was to go.
    pub extra: serde_json::Value,
}

/// Metadata key of a resume file.
const KEY: &str = "wan-run-resume";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    model: String,
    request: Request,
    width: usize,
    height: usize,
    frames: usize,
    #[serde(default)]
    end_image: bool,
    scheduler: SchedulerKind,
    step: usize,
    rng: RngState,
    extra: serde_json::Value,
}

const VERSION: u32 = 1;

impl Header {
    /// That of an open file; `path` is for messages.
    fn of(set: &WeightSet, path: &Path) -> Result<Self> {
        let text =
            set.metadata().get(KEY).ok_or_else(|| resume_error(path, format!("no `{KEY}` in its header")))?;
        let header: Self = serde_json::from_str(text).map_err(|e| resume_error(path, e))?;
        if header.version != VERSION {
            return Err(resume_error(path, format!("version {}, expected {VERSION}", header.version)));
        }
        Ok(header)
    }
}

impl SavedJob {
    /// Writes the job to `path`, whole or not at all; an earlier file there is replaced.
    ///
    /// Errors: input/output errors of `path`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let Job { plan, conditioning, state } = &self.job;
        let header = Header {
            version: VERSION,
            model: self.model.clone(),
            request: plan.request.clone(),
            width: plan.width,
            height: plan.height,
            frames: plan.frames,
            end_image: plan.end_image,
            scheduler: state.sampler.kind,
            step: state.sampler.step,
            rng: state.rng.clone(),
            extra: self.extra.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| resume_error(path, e))?;
        let mut tensors = conditioning.tensors();
        tensors.insert("latents".into(), state.latents.clone());
        for (name, tensor) in &state.sampler.history {
            tensors.insert(format!("history.{name}"), tensor.clone());
        }
        if let Some(sample) = &state.reused_from {
            tensors.insert("reused_from".into(), sample.clone());
        }
        save_tensors(path, &tensors, HashMap::from([(KEY.to_string(), header)]))
    }

    /// The caller's own data alone; tensors are not read.
    ///
    /// Errors: [`PipelineError::Resume`] if the file is something else.
    pub fn read_extra(path: &Path) -> Result<serde_json::Value> {
        Ok(Header::of(&WeightSet::open(path)?, path)?.extra)
    }

    /// Reads a job back.
    ///
    /// Errors: [`PipelineError::Resume`] if the file is something else or lacks a tensor; the request's own.
    pub fn open(path: &Path) -> Result<Self> {
        let set = WeightSet::open(path)?;
        let header = Header::of(&set, path)?;
        let tensors: BTreeMap<String, Tensor> = set
            .iter()
            .map(|t| Ok((t.name().to_string(), t.to_f32_tensor(&Device::Cpu)?)))
            .collect::<Result<_>>()?;
        let history = tensors
            .iter()
            .filter_map(|(n, t)| Some((n.strip_prefix("history.")?.to_string(), t.clone())))
            .collect();
        let latents =
            tensors.get("latents").ok_or_else(|| resume_error(path, "no tensor `latents`"))?.clone();
        let conditioning = Conditioning::from_tensors(&tensors).map_err(|e| resume_error(path, e))?;
        let plan = Plan::for_size(header.request, (header.width, header.height), header.frames)?
            .with_end_image(header.end_image)?;
        let reused_from = tensors.get("reused_from").cloned();
        for tensor in std::iter::once(&latents).chain(&reused_from) {
            if tensor.dims() != plan.latent_shape() {
                let (found, expected) = (tensor.dims(), plan.latent_shape());
                return Err(resume_error(path, format!("latents {found:?}, expected {expected:?}")));
            }
        }
        let sampler = SamplerState { kind: header.scheduler, step: header.step, history };
        Ok(Self {
            job: Job {
                plan,
                conditioning,
                state: DenoiseState { latents, sampler, rng: header.rng, reused_from },
            },
            model: header.model,
            extra: header.extra,
        })
    }
}

/// Writes named tensors as safetensors, whole or not at all; an earlier file is replaced.
///
/// Errors: input/output errors of `path`.
pub fn save_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let tensors: Vec<(&String, Tensor)> = tensors
        .iter()
        .map(|(n, t)| Ok((n, to_host(t)?.contiguous()?)))
        .collect::<Result<_, candle_core::Error>>()?;
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bytes = safetensors::serialize(tensors, metadata)
        .map_err(|e| PipelineError::request("tensors to save", e, "serialisable tensors"))?;
    Ok(wan_media::write_file(path, &bytes, true)?)
}

/// Reads one f32 tensor of `path`: the one called `name`, or the only one there is.
///
/// Errors: [`PipelineError::Request`] naming the file if there is no such tensor.
pub fn load_tensor(path: &Path, name: &'static str) -> Result<Tensor> {
    let set = WeightSet::open(path)?;
    let tensors: Vec<&Stored> = set.iter().collect();
    let found = match (set.get(name), tensors.as_slice()) {
        (Some(tensor), _) => tensor,
        (None, [only]) => only,
        _ => {
            let names = set.names().take(5).collect::<Vec<_>>().join(", ");
            return Err(PipelineError::request(
                name,
                format!("{} with {names}", path.display()),
                format!("a tensor `{name}`"),
            ));
        }
    };
    found.to_f32_tensor(&Device::Cpu).map_err(|e| {
        // The tensor is named, but not the file.
        PipelineError::from(match e {
            wan_core::Error::Invalid { what, found, expected } => {
                wan_core::Error::Invalid { what: format!("{}: {what}", path.display()), found, expected }
            }
            other => other,
        })
    })
}

fn resume_error(path: &Path, reason: impl std::fmt::Display) -> PipelineError {
    PipelineError::Resume { label: path.display().to_string(), reason: reason.to_string() }
}
