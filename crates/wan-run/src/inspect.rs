//! `models inspect` and `models convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wan_checkpoint::{ConvertOptions, Report, ScaleUnit, Target};
use wan_core::progress::CancelToken;

use crate::error::{Failure, Outcome};
use crate::print_line;

/// Options of `models inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Checkpoint: safetensors, .pth or GGUF file, index of a sharded set, or a folder.
    pub file: PathBuf,
}

/// Options of `models convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Checkpoint to read.
    pub input: PathBuf,
    /// Safetensors file to write.
    pub output: PathBuf,
    /// Dtype of the matrices.
    #[arg(long, value_enum)]
    pub to: To,
    /// With fp8-scaled, what shares one scale. Only `tensor` is read by other programs.
    #[arg(long, value_enum, default_value_t)]
    pub scale: Unit,
    /// Replace an existing output.
    #[arg(long)]
    pub overwrite: bool,
    /// Also list the error of every tensor.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Dtypes to convert to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// FP8 (e4m3fn), rounded without scales.
    Fp8,
    /// FP8 with scales.
    Fp8Scaled,
    /// bf16 throughout.
    Bf16,
}

/// What shares one scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// A matrix.
    #[default]
    Tensor,
    /// A row of a matrix.
    Row,
}

/// Prints what a checkpoint is. Fails, after printing, where it could not be used.
pub fn inspect(args: &InspectArgs) -> Outcome {
    let report = wan_checkpoint::inspect(&args.file)?;
    print_line(text(&report).trim_end())?;
    match report.problem {
        Some(problem) => Err(Failure::run(problem)),
        None => Ok(()),
    }
}

fn text(report: &Report) -> String {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let mut lines = vec![
        format!("component      {}", report.component),
        format!("layout         {} ({} file{})", report.layout, report.files, plural(report.files)),
        format!("parameters     {}", report.parameters),
        format!("configuration  {}", report.configuration),
    ];
    for count in &report.dtypes {
        let (n, values) = (count.tensors, count.values);
        lines.push(format!("dtype          {} ({n} tensor{}, {values} values)", count.dtype, plural(n)));
    }
    // Tensors that are skipped for the same reason make one line.
    let mut reasons: Vec<(&str, usize, &str)> = Vec::new();
    for (name, why) in &report.unused {
        match reasons.iter_mut().find(|(known, ..)| known == why) {
            Some((_, n, _)) => *n += 1,
            None => reasons.push((why, 1, name)),
        }
    }
    lines.extend(reasons.iter().map(|(why, n, first)| match n {
        1 => format!("not loaded     {first}: {why}"),
        n => format!("not loaded     {n} tensors such as {first}: {why}"),
    }));
    lines.join("\n") + "\n"
}

/// Converts a checkpoint and reports the error.
pub fn convert(args: &ConvertArgs, cancel: &CancelToken) -> Outcome {
    let target = match (args.to, args.scale) {
        (To::Fp8, _) => Target::Fp8,
        (To::Bf16, _) => Target::Bf16,
        (To::Fp8Scaled, Unit::Tensor) => Target::Fp8Scaled(ScaleUnit::Tensor),
        (To::Fp8Scaled, Unit::Row) => Target::Fp8Scaled(ScaleUnit::Row),
    };
    let options = ConvertOptions { target, overwrite: args.overwrite };
    let bar = indicatif::ProgressBar::new(0);
    let done = wan_checkpoint::convert(&args.input, &args.output, &options, cancel, |index, count, name| {
        bar.set_length(count as u64);
        bar.set_position(index as u64);
        bar.set_message(name.to_string());
    });
    bar.finish_and_clear();
    let done = done?;
    if args.verbose {
        for t in &done.changed {
            let (relative, largest) = (t.relative_error, t.largest_error);
            print_line(&format!(
                "{}: {} to {}, relative error {relative:.3e}, largest {largest:.3e}",
                t.name, t.from, t.to
            ))?;
        }
    }
    if let Some(worst) = done.changed.iter().max_by(|a, b| a.relative_error.total_cmp(&b.relative_error)) {
        let (n, error) = (done.changed.len(), worst.relative_error);
        print_line(&format!("{}: {n} tensors converted, {} copied", done.component, done.copied))?;
        print_line(&format!("largest relative error {error:.3e} in {}", worst.name))?;
    } else {
        print_line(&format!(
            "{}: nothing had to be converted, {} tensors copied",
            done.component, done.copied
        ))?;
    }
    Ok(())
}
