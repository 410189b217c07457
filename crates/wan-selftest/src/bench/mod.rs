//! Timings: a denoising step and what it consists of, the VAE, the encoders, loading, and the rates that bound them.
//!
//! A row gives the median, the shortest and the longest of its runs in milliseconds, after warm-up, by the device's own
//! clock; with its operations, the rate; and on GPUs whose rates are known, the floor: the time that the operations
//! take at the rate that the vendor states.

mod attention;
mod convolution;
mod copies;
mod encoders;
mod floor;
mod products;
mod step;
mod stopwatch;
mod vae;
mod work;

use std::path::PathBuf;

use candle_core::Device;
use wan_core::geometry::LatentSize;
use wan_models::ModelFiles;
use wan_pipeline::Result;

pub use floor::Rates;
pub use work::StepWork;

use crate::components::tiny;
use crate::{Check, Row, Runner, Selection, jobs};
use stopwatch::{Stopwatch, Times};

/// Size of a video: width, height, frames.
pub type VideoSize = [usize; 3];

/// What to time.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The device.
    pub device: Device,
    /// Description of the model, its files beside it; without it the embedded model's.
    pub model: Option<PathBuf>,
    /// Videos; the first one's size is that of everything that is timed once.
    pub videos: Vec<VideoSize>,
    /// Numbers of swapped blocks.
    pub swapped: Vec<usize>,
    /// Timed runs of a row; those of seconds take fewer.
    pub runs: usize,
    /// Seed of all inputs.
    pub seed: u64,
    /// Which rows.
    pub selection: Selection,
}

/// The videos whose speed is stated.
pub const VIDEOS: [VideoSize; 3] = [[512, 512, 81], [832, 480, 81], [1280, 720, 81]];

/// Runs the timings that were asked for and shows each to `sink` when it is done.
pub fn bench(options: &BenchOptions, sink: &mut dyn FnMut(&Row)) -> Vec<Row> {
    let mut runner = Runner::new(&options.device, &options.selection, sink);
    let files = match &options.model {
        Some(description) => jobs::model(description),
        None => tiny(),
    };
    match files {
        Ok(files) => {
            let bench = Bench { options, files: &files, rates: Rates::of(&options.device) };
            copies::run(&bench, &mut runner);
            products::run(&bench, &mut runner);
            attention::run(&bench, &mut runner);
            encoders::run(&bench, &mut runner);
            convolution::run(&bench, &mut runner);
            vae::run(&bench, &mut runner);
            step::run(&bench, &mut runner);
        }
        Err(error) => runner.row("model", "files", || Err(error)),
    }
    runner.finish()
}

/// What all timings share.
struct Bench<'a> {
    options: &'a BenchOptions,
    files: &'a ModelFiles,
    rates: Option<Rates>,
}

impl Bench<'_> {
    fn device(&self) -> &Device {
        &self.options.device
    }

    fn stopwatch(&self) -> Result<Stopwatch<'_>> {
        Stopwatch::new(self.device())
    }

    /// Times `run` after two runs of warm-up.
    fn time(&self, run: impl FnMut() -> Result<()>) -> Result<Times> {
        self.stopwatch()?.measure(2, self.options.runs, run)
    }

    /// Times what takes seconds: one run of warm-up, at most three timed.
    fn time_long(&self, run: impl FnMut() -> Result<()>) -> Result<Times> {
        self.stopwatch()?.measure(1, self.options.runs.min(3), run)
    }

    /// The figures of a row: times, the rate of `flops` operations, and the floor, `floor` seconds.
    fn figures(times: Times, flops: f64, floor: Option<f64>) -> Vec<Check> {
        let mut checks = vec![
            Check::info("ms", times.median),
            Check::info("min", times.min),
            Check::info("max", times.max),
        ];
        if flops > 0.0 {
            checks.push(Check::info("TFLOP/s", flops / times.median / 1e9));
        }
        if let Some(floor) = floor {
            checks.push(Check::info("floor, ms", floor * 1e3));
            checks.push(Check::info("times the floor", times.median / (floor * 1e3)));
        }
        checks
    }
}

/// The latents of a video.
fn latent([width, height, frames]: VideoSize) -> LatentSize {
    LatentSize::of_video(frames, width, height)
}

/// A video's size in a row's name.
fn label([width, height, frames]: VideoSize) -> String {
    format!("{width}x{height}x{frames}")
}
