//! Whole jobs through the pipeline: the embedded model on the device against the CPU, and a model of the caller's
//! under block swapping.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_core::Error;
use wan_core::device::compute_dtype;
use wan_core::progress::{CancelToken, Silent};
use wan_media::{Alpha, RgbImage, decode_image};
use wan_models::{ModelFiles, ModelType, Places, Registry};
use wan_pipeline::{BlocksToSwap, Pipeline, Request, Result};

use crate::compare::difference;
use crate::components::tiny;
use crate::memory::{device_peak, forget_peak, used};
use crate::reference::Matrix;
use crate::{Check, Runner};

/// Jobs in one process whose memory is compared.
const JOBS: usize = 10;
/// What main memory may grow by between the first job and the last, in bytes: allocators keep some pages.
const HOST_SLACK: f64 = 16e6;

/// How large a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSize {
    /// Pixels, a multiple of 16.
    pub width: usize,
    /// Pixels, a multiple of 16.
    pub height: usize,
    /// Frames, 4n + 1.
    pub frames: usize,
    /// Denoising steps.
    pub steps: usize,
}

/// Size of the embedded model's jobs.
const TINY: JobSize = JobSize { width: 96, height: 64, frames: 9, steps: 10 };

/// What a job gave, and what it took.
struct Finished {
    latents: Tensor,
    frames: usize,
    /// Conditioning, denoising, decoding.
    seconds: [f64; 3],
}

/// Rows over the embedded model.
pub(crate) fn run(runner: &mut Runner<'_>, device: &Device) {
    const GROUP: &str = "jobs";
    runner.row(GROUP, "denoising loop in f32 against the cpu", || {
        let expected = job(&tiny()?, &Device::Cpu, DType::F32, TINY, 0)?.latents;
        let found = job(&tiny()?, device, DType::F32, TINY, 0)?.latents;
        let d = difference(&Matrix::of(&found)?, &Matrix::of(&expected)?);
        Ok(vec![Check::at_most("largest difference", d.largest, 1e-3), Check::info("error", d.relative_l2)])
    });
    runner.row(GROUP, "swapped blocks change no bit", || {
        let latents = |swapped| -> Result<Matrix> {
            Ok(Matrix::of(&job(&tiny()?, device, compute_dtype(device), TINY, swapped)?.latents)?)
        };
        let resident = latents(0)?;
        let apart = |swapped| -> Result<Check> {
            let d = difference(&latents(swapped)?, &resident);
            Ok(Check::at_most(format!("difference with {swapped} swapped"), d.largest, 0.0))
        };
        Ok(vec![apart(1)?, apart(2)?])
    });
    runner.row(GROUP, "ten jobs leave memory as the first did", || ten_jobs(device));
}

fn ten_jobs(device: &Device) -> Result<Vec<Check>> {
    let mut after = Vec::with_capacity(JOBS);
    forget_peak(device)?;
    for _ in 0..JOBS {
        job(&tiny()?, device, compute_dtype(device), TINY, 1)?;
        after.push(used(device)?);
    }
    let (first, last) = (after[0], after[JOBS - 1]);
    let growth = |from: u64, to: u64| to as f64 - from as f64;
    let mut checks = vec![
        Check::at_most("host bytes more", growth(first.host, last.host), HOST_SLACK),
        Check::at_most("device bytes more", growth(first.device, last.device), 0.0),
    ];
    checks.extend(device_peak(device)?);
    Ok(checks)
}

/// Rows over the model that `description` describes, its files beside it: one job for each number of swapped blocks.
pub(crate) fn run_model(
    runner: &mut Runner<'_>,
    device: &Device,
    description: &Path,
    size: JobSize,
    swapped: &[usize],
) {
    let mut first: Option<Matrix> = None;
    for count in swapped {
        let JobSize { width, height, frames, steps } = size;
        runner.row("model", format!("{width}x{height}x{frames}, {steps} steps, {count} swapped"), || {
            let files = model(description)?;
            forget_peak(device)?;
            let done = job(&files, device, compute_dtype(device), size, *count)?;
            let [condition, denoise, decode] = done.seconds;
            let mut checks = vec![
                Check::at_least("frames", done.frames as f64, frames as f64),
                Check::info("condition, s", condition),
                Check::info("denoise, s", denoise),
                Check::info("decode, s", decode),
            ];
            checks.extend(device_peak(device)?);
            let latents = Matrix::of(&done.latents)?;
            match &first {
                Some(first) => {
                    let d = difference(&latents, first);
                    checks.push(Check::at_most("difference to the first", d.largest, 0.0));
                }
                None => first = Some(latents),
            }
            Ok(checks)
        });
    }
}

/// The files of a description that lie beside it.
///
/// Errors: files that are missing.
pub(crate) fn model(description: &Path) -> Result<ModelFiles> {
    let registry = Registry::builtin()?;
    let folder = description.parent().unwrap_or(Path::new("."));
    let name = description
        .to_str()
        .ok_or_else(|| Error::invalid("model", description.display(), "a path in UTF-8"))?;
    Ok(registry.resolve(&registry.find(name)?, &Places::folder(folder))?)
}

/// The image that comes with the program.
pub(crate) fn sample_image() -> Result<RgbImage> {
    Ok(decode_image(Registry::sample_image(), "the sample image", Alpha::Drop)?)
}

/// A request for a job with guidance.
pub(crate) fn request(files: &ModelFiles, size: JobSize, swapped: usize) -> Result<Request> {
    Ok(Request {
        prompt: "a red balloon drifts over the hills".into(),
        negative_prompt: "static, blurry".into(),
        width: size.width,
        height: size.height,
        frames: size.frames,
        steps: size.steps,
        cfg: 6.0,
        seed: 42,
        adjust_resolution: false,
        blocks_to_swap: BlocksToSwap::Count(swapped),
        ..Request::with_defaults(&files.description.defaults)?
    })
}

fn job(files: &ModelFiles, device: &Device, dtype: DType, size: JobSize, swapped: usize) -> Result<Finished> {
    let image = sample_image()?;
    let image = (files.description.model_type == ModelType::I2v).then_some(&image);
    let request = request(files, size, swapped)?;
    let pipeline = Pipeline::open(files.clone(), device.clone(), dtype)?;
    let plan = pipeline.plan(request, image)?;
    let cancel = CancelToken::new();
    let mut begun = Instant::now();
    let mut lap = || std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
    let mut job = pipeline.prepare(plan, image, None, &Silent, &cancel)?;
    let condition = lap();
    pipeline.denoise(&mut job, &Silent, &cancel)?;
    let denoise = lap();
    let mut frames = 0;
    let mut sink = |_: &[u8]| {
        frames += 1;
        Ok(())
    };
    pipeline.decode(&job.plan, &job.state.latents, &mut sink, &Silent, &cancel)?;
    Ok(Finished { latents: job.state.latents, frames, seconds: [condition, denoise, lap()] })
}
