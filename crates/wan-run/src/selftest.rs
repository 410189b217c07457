//! `wan-run selftest`, `bench` and `synthesize`: for whoever works on the engine, not in the help.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use wan_core::device::DeviceChoice;
use wan_selftest::bench::{VIDEOS, VideoSize};
use wan_selftest::{
    BenchOptions, JobSize, ModelSize, Outcome as RowOutcome, Row, Selection, SelftestOptions, Synthesis,
    bench, selftest, synthesize,
};

use crate::error::{Failure, Outcome};

/// What `selftest` and `bench` have in common.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Rows whose `group/name` contains this; repeated, any of them.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Adds a line of JSON for each row, as soon as it is known.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Rows that would start later are skipped.
    #[arg(long, value_name = "SECONDS")]
    pub limit_seconds: Option<u64>,
    /// Seed of inputs and synthetic weights.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Description of a model, its files beside it.
    #[arg(long, value_name = "FILE.toml")]
    pub model: Option<PathBuf>,
    /// Numbers of DiT blocks in main memory.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,10,40")]
    pub swap: Vec<usize>,
}

/// Options of `selftest`.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// What is checked where.
    #[command(flatten)]
    pub check: CheckArgs,
    /// True dimensions as well as small ones.
    #[arg(long)]
    pub full: bool,
    /// Size of the jobs on --model: WIDTHxHEIGHTxFRAMES.
    #[arg(long, value_name = "SIZE", default_value = "832x480x81", value_parser = video_size)]
    pub size: VideoSize,
    /// Denoising steps of those jobs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub steps: usize,
    /// Values of the first blocks of --model by another implementation.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub reference: Option<PathBuf>,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What is timed where.
    #[command(flatten)]
    pub check: CheckArgs,
    /// Sizes of videos: WIDTHxHEIGHTxFRAMES.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = video_size)]
    pub size: Vec<VideoSize>,
    /// Timed runs of a row.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub runs: usize,
}

/// Options of `synthesize`.
#[derive(Debug, Args)]
pub struct SynthesizeArgs {
    /// Folder to write.
    pub folder: PathBuf,
    /// Dimensions: those of the 14B FP8 model, 30 GB, or of the embedded one.
    #[arg(long, value_enum, default_value_t = LayoutName::Full)]
    pub layout: LayoutName,
    /// Seed of every value.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Only so many blocks of the DiT and of the encoders.
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
}

/// Dimensions of a synthetic model.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LayoutName {
    /// The 14B FP8 model, UMT5-XXL, CLIP ViT-H/14, the VAE.
    #[value(name = "14b-fp8")]
    Full,
    /// The embedded model's.
    Tiny,
}

/// Checks; fails if a row does.
pub fn run_selftest(args: SelftestArgs) -> Outcome {
    let [width, height, frames] = args.size;
    let options = SelftestOptions {
        device: args.check.device()?,
        full: args.full,
        seed: args.check.seed,
        selection: args.check.selection(),
        model: args.check.model.clone(),
        job: JobSize { width, height, frames, steps: args.steps },
        swapped: args.check.swap.clone(),
        reference: args.reference,
    };
    report(&args.check, |sink| selftest(&options, sink))
}

/// Times.
pub fn run_bench(args: BenchArgs) -> Outcome {
    let device = args.check.device()?;
    let videos = match (args.size, &args.check.model) {
        (sizes, _) if !sizes.is_empty() => sizes,
        (_, Some(_)) => VIDEOS.to_vec(),
        (_, None) => vec![[64, 64, 5]],
    };
    let options = BenchOptions {
        device,
        model: args.check.model.clone(),
        videos,
        swapped: args.check.swap.clone(),
        runs: args.runs,
        seed: args.check.seed,
        selection: args.check.selection(),
    };
    report(&args.check, |sink| bench(&options, sink))
}

/// Writes a model.
pub fn run_synthesize(args: &SynthesizeArgs) -> Outcome {
    let size = match args.layout {
        LayoutName::Full => ModelSize::Full,
        LayoutName::Tiny => ModelSize::Tiny,
    };
    let written = synthesize(&args.folder, &Synthesis { size, seed: args.seed, blocks: args.blocks })?;
    let (gigabytes, seconds) = (written.bytes as f64 / 1e9, written.took.as_secs_f64());
    crate::progress::say(&format!(
        "{gigabytes:.2} GB in {seconds:.1} s, {:.2} GB/s",
        gigabytes / seconds.max(1e-9)
    ));
    crate::print(format!("{}\n", written.description.display()).as_bytes())
}

impl CheckArgs {
    fn device(&self) -> Outcome<candle_core::Device> {
        let opened = self.device.parse::<DeviceChoice>().map_err(Failure::usage)?.open()?;
        if let Some(note) = opened.note {
            crate::progress::say(&note);
        }
        Ok(opened.device)
    }

    fn selection(&self) -> Selection {
        let deadline = self.limit_seconds.map(|s| Instant::now() + Duration::from_secs(s));
        Selection { only: self.only.clone(), deadline }
    }
}

/// Prints each row, and writes it to the file of JSON lines.
fn report(args: &CheckArgs, run: impl FnOnce(&mut dyn FnMut(&Row)) -> Vec<Row>) -> Outcome {
    let mut json = match &args.json {
        Some(path) => Some(
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|e| Failure::run(format!("{}: {e}", path.display())))?,
        ),
        None => None,
    };
    let mut lost = Ok(());
    let mut sink = |row: &Row| {
        let printed = crate::print(format!("{row}\n").as_bytes());
        let written = json.as_mut().map_or(Ok(()), |file| {
            let line = serde_json::to_string(row).map_err(Failure::run)?;
            writeln!(file, "{line}").map_err(|e| Failure::run(format!("--json: {e}")))
        });
        if lost.is_ok() {
            lost = printed.and(written);
        }
    };
    let rows = run(&mut sink);
    lost?;
    if rows.is_empty() {
        return Err(Failure::usage("no row has a name that contains what --only says"));
    }
    let count = |wanted: fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count();
    let (bad, skipped) = (count(|r| !r.is_good()), count(|r| matches!(r.outcome, RowOutcome::Skipped(_))));
    let summary = format!("{} rows: {bad} failed, {skipped} skipped", rows.len());
    if bad > 0 {
        return Err(Failure::run(summary));
    }
    crate::progress::say(&summary);
    Ok(())
}

/// `WIDTHxHEIGHTxFRAMES`.
fn video_size(text: &str) -> Result<VideoSize, String> {
    let numbers: Option<Vec<usize>> = text.split('x').map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[width, height, frames])
            if width % 16 == 0 && height % 16 == 0 && frames % 4 == 1 && width * height > 0 =>
        {
            Ok([width, height, frames])
        }
        _ => Err(format!("found `{text}`, expected WIDTHxHEIGHTxFRAMES, multiples of 16 and 4n + 1 frames")),
    }
}
