//! Checks and timings of the whole engine on one device, carried by the program itself, so that a machine that has a
//! GPU but no compiler needs nothing else: every op, every component, whole jobs, and models of true size with
//! synthetic weights. Everything runs on the CPU as well, at small sizes.
//!
//! [`selftest`] checks, [`bench()`] times, [`synthesize`] writes a model for both.

pub mod bench;
mod compare;
mod components;
mod jobs;
mod memory;
mod ops;
pub mod reference;
mod report;
mod runner;
pub mod synthesis;
mod trial;

use std::path::PathBuf;

use candle_core::Device;

pub use bench::{BenchOptions, bench};
pub use jobs::JobSize;
pub use report::{Check, Limit, Outcome, Row};
pub use runner::{Runner, Selection};
pub use synthesis::{ModelSize, Synthesis, Written, synthesize};
pub use trial::trial;

/// What to check.
#[derive(Debug, Clone)]
pub struct SelftestOptions {
    /// The device that is checked.
    pub device: Device,
    /// Whether true dimensions are tried as well: minutes on a CPU.
    pub full: bool,
    /// Seed of inputs and weights.
    pub seed: u64,
    /// Which rows.
    pub selection: Selection,
    /// Description of a model whose jobs are run, its files beside it.
    pub model: Option<PathBuf>,
    /// Size of those jobs.
    pub job: JobSize,
    /// Numbers of swapped blocks, a job each.
    pub swapped: Vec<usize>,
    /// Values of the model's first blocks, computed by another implementation.
    pub reference: Option<PathBuf>,
}

/// Tokens of 832x480, 81 frames.
const TOKENS: usize = 32_760;
/// Tokens at true dimensions on a CPU.
const CPU_TOKENS: usize = 40;

/// Runs the checks that were asked for, one after the other, and shows each to `sink` when it is done. The device is in
/// order if every row [`is good`](Row::is_good).
pub fn selftest(options: &SelftestOptions, sink: &mut dyn FnMut(&Row)) -> Vec<Row> {
    let SelftestOptions { device, full, seed, selection, .. } = options;
    let mut runner = Runner::new(device, selection, sink);
    let large = device.is_cuda();
    if selection.wants_group(ops::GROUP) {
        let tokens = if large { TOKENS } else { CPU_TOKENS };
        ops::run(&mut runner, device, ops::Scale { full: *full, tokens, seed: *seed });
    }
    if selection.wants_group(components::GROUP) {
        let scale = components::Scale { full: *full, large, seed: *seed };
        components::run(&mut runner, device, scale);
    }
    jobs::run(&mut runner, device);
    if let Some(model) = &options.model {
        jobs::run_model(&mut runner, device, model, options.job, &options.swapped);
    }
    if let (Some(model), Some(reference)) = (&options.model, &options.reference) {
        match jobs::model(model).and_then(|files| Ok(files.dit.weights()?)) {
            Ok(dit) => components::reference_row(&mut runner, device, reference, &dit),
            Err(error) => runner.row("reference", "the model's files", || Err(error)),
        }
    }
    runner.finish()
}
