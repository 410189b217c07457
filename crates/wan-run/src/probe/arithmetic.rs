//! The components without weights.

use candle_core::{Device, Tensor};
use wan_core::{Error, geometry};
use wan_media::{Alpha, load_image};
use wan_pipeline::image_tensor;
use wan_sampler::{Schedule, SchedulerKind, TorchRng};

use super::ProbeArgs;
use super::io::{Outputs, output};
use crate::error::{Failure, Outcome};

pub fn scheduler(args: &ProbeArgs) -> Outcome<Outputs> {
    let steps = *args.required(args.steps.as_ref(), "--steps")?;
    let kind: SchedulerKind = args.scheduler.parse().map_err(Failure::usage)?;
    let schedule = Schedule::new(kind, steps, args.shift, args.denoise_strength).map_err(Failure::usage)?;
    let inputs = args.inputs()?;
    let mut sample = inputs.f32("sample")?;
    let outputs = per_step("model_outputs", inputs.f32("model_outputs")?, &schedule, &sample)?;
    let noise = match kind.needs_noise() {
        true => Some(per_step("noise", inputs.f32("noise")?, &schedule, &sample)?),
        false => None,
    };
    let mut sampler = schedule.sampler();
    let mut samples = Vec::with_capacity(schedule.steps());
    for step in 0..schedule.steps() {
        let noise = noise.as_ref().map(|n| n.get(step)).transpose()?;
        sample = sampler.step(&outputs.get(step)?, &sample, noise.as_ref())?;
        samples.push(sample.clone());
    }
    let vector = |values: &[f32]| Tensor::new(values, &Device::Cpu);
    Ok([
        ("sigmas".to_string(), vector(schedule.sigmas())?),
        ("timesteps".to_string(), vector(schedule.timesteps())?),
        ("samples".to_string(), Tensor::stack(&samples, 0)?),
    ]
    .into())
}

/// Checks that `tensor` holds one tensor of the sample's shape for each step.
fn per_step(name: &str, tensor: Tensor, schedule: &Schedule, sample: &Tensor) -> Outcome<Tensor> {
    let expected: Vec<usize> = [schedule.steps()].into_iter().chain(sample.dims().iter().copied()).collect();
    if tensor.dims() != expected {
        let expected = format!("{expected:?}: one of the sample's shape for each of the steps really run");
        return Err(Error::shape(name, tensor.dims(), expected).into());
    }
    Ok(tensor)
}

pub fn noise(args: &ProbeArgs) -> Outcome<Outputs> {
    if args.shape.is_empty() {
        return Err(Failure::usage("probe noise: --shape is missing"));
    }
    const MAX: usize = 1 << 31;
    let elements = args.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX);
    if elements.is_none() {
        return Err(Failure::usage(format!(
            "probe noise: --shape {:?}: expected at most {MAX} values",
            args.shape
        )));
    }
    output("noise", TorchRng::seed(args.seed).randn_tensor(args.shape.as_slice(), &Device::Cpu)?)
}

pub fn image(args: &ProbeArgs) -> Outcome<Outputs> {
    let path = args.required(args.image.as_ref(), "--image")?;
    let width = *args.required(args.width.as_ref(), "--width")?;
    let height = *args.required(args.height.as_ref(), "--height")?;
    for (option, value) in [("--width", width), ("--height", height)] {
        if !(16..=16384).contains(&value) {
            return Err(Failure::usage(format!(
                "probe image: {option}: found {value}, expected 16 to 16384"
            )));
        }
    }
    let image = load_image(path, Alpha::Drop)?;
    let (width, height) = if args.no_adjust_resolution {
        (geometry::floor_pixels(width), geometry::floor_pixels(height))
    } else {
        geometry::adjust_resolution((image.width() as usize, image.height() as usize), (width, height))
    };
    if width == 0 || height == 0 {
        return Err(Failure::run(format!(
            "{}: found {}x{} pixels, expected a shape that leaves at least 16 pixels a side",
            path.display(),
            image.width(),
            image.height()
        )));
    }
    output("image", image_tensor(&image, width, height)?)
}
