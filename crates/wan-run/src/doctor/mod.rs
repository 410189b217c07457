//! `wan-run doctor`: whether this machine can make videos, and what to do where it cannot, as one block of text that
//! can be put into a bug report.

mod codecs;
mod disk;
mod machine;
mod models;
mod ops;
mod redact;
mod report;

use std::path::PathBuf;

use clap::Args;
use wan_core::device::DeviceChoice;
use wan_models::Registry;
use wan_ops::SpecialKernels;

use crate::cli::PlacesArgs;
use crate::error::{Failure, Outcome};
use crate::kernels::{self, Verdict};
use crate::nvidia;
use crate::options::{Options, resolve, user_defaults};
use crate::settings::Settings;

use redact::Redaction;
use report::{Check, Report};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Model to check; if you name one, its files must be present [default: WAN_RUN_MODEL, else the one in the defaults file].
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Folder where videos will be written [default: the current one].
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    folder: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Where to look.
    #[command(flatten)]
    places: PlacesArgs,
}

/// Runs the command.
///
/// Errors: exit 1 if something keeps jobs from running; exit 2 for names that there are not.
pub fn run(args: &DoctorArgs) -> Outcome {
    let mut report = Report::new(machine::facts());
    let defaults = match user_defaults(args.places.config.as_deref()) {
        Ok(defaults) => defaults,
        Err(failure) => {
            report.add(Check::fail(
                "defaults",
                failure.line(),
                "correct the file, or name another with --config",
            ));
            Settings::default()
        }
    };
    let given = Settings {
        model: args.model.clone(),
        device: args.device.clone(),
        models_dir: args.places.models_dir.clone(),
        extra_model_paths: args.places.extra_model_paths.clone(),
        ..Settings::default()
    };
    let settings = given.or(defaults);
    let model_is_named = settings.model.is_some();
    let registry = Registry::builtin()?;
    let options = resolve(settings, &registry)?;
    check(&mut report, args, &options, &registry, model_is_named);
    let cache = crate::hub::cache().map(|cache| cache.folder().to_path_buf());
    let mut folders =
        vec![(options.models_dir.as_path(), "<models folder>"), (&args.folder, "<videos folder>")];
    folders.extend(cache.as_deref().map(|cache| (cache, "<hub cache>")));
    let redaction = Redaction::of_this_user(&folders);
    let text = match args.json {
        true => serde_json::to_string_pretty(&report.redacted(&redaction)).map_err(Failure::run)? + "\n",
        false => report.redacted(&redaction).to_string(),
    };
    crate::print(text.as_bytes())?;
    match report.problems() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(Failure::run(format!("doctor: problems found: {}", problems.join(", ")))),
    }
}

fn check(
    report: &mut Report,
    args: &DoctorArgs,
    options: &Options,
    registry: &Registry,
    model_is_named: bool,
) {
    report.add(machine::memory());
    let card = nvidia::card();
    let device = device(options.device, card.is_some());
    if let Some(card) = card {
        report.add(Check::ok("card", card));
    }
    let (device, opened) = device;
    report.add(device);
    if let Some(device) = &opened {
        own_kernels(device, options.device).into_iter().for_each(|check| report.add(check));
        report.add(ops::check(device));
    }
    codecs::check(report);
    report.add(disk::check("disk (videos)", &args.folder));
    if let Some(cache) = crate::hub::cache().map(|cache| cache.folder().to_path_buf()).filter(|f| f.is_dir())
    {
        report.add(disk::check("disk (hub cache)", &cache));
    }
    models::check(report, options, registry, model_is_named);
}

/// Whether a GPU's own kernels are right, each op's; nothing where it has none.
fn own_kernels(device: &candle_core::Device, choice: DeviceChoice) -> Vec<Check> {
    const NAME: &str = "kernels";
    let check = |(op, verdict): (SpecialKernels, Verdict)| match verdict.told(op, None) {
        None => Check::ok(NAME, format!("this GPU's own for {} are right", op.name())),
        Some(found) => {
            Check::warn(NAME, found, "update the driver; if it stays so, report a bug with this text")
        }
    };
    match kernels::settle(device, choice, |_| {}) {
        Ok(found) => found.into_iter().map(check).collect(),
        Err(failure) => vec![Check::fail(NAME, failure.message, "do what the message says")],
    }
}

/// The device, and whether a card that is there is used.
fn device(choice: DeviceChoice, card: bool) -> (Check, Option<candle_core::Device>) {
    const NAME: &str = "device";
    match choice.open() {
        Err(error) => (Check::fail(NAME, error, "use --device cpu, or do what the message says"), None),
        Ok(opened) => {
            let name = if opened.device.is_cpu() { "cpu" } else { "NVIDIA GPU" };
            let check = match (opened.note, choice) {
                (Some(note), _) => Check::warn(NAME, note, "do what the message says, or go on with the CPU"),
                (None, DeviceChoice::Auto) if card && opened.device.is_cpu() => Check::warn(
                    NAME,
                    "cpu: this build cannot use the card",
                    "build one that can with `make build-cuda`",
                ),
                (None, _) => Check::ok(NAME, name),
            };
            (check, Some(opened.device))
        }
    }
}
