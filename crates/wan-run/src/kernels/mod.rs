//! Which kernels a GPU computes with: its own (those for its kind alone) where they were tried on this machine and are right,
//! portable ones otherwise.

mod trial;
mod verdicts;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use candle_core::Device;
use wan_core::device::DeviceChoice;
use wan_ops::{SpecialKernels, special_kernels, special_kernels_on, use_portable_kernels};

use crate::error::{Failure, Outcome};

pub use trial::{TrialArgs, run as run_trial};
pub use verdicts::Verdict;
use verdicts::Verdicts;

/// Seconds that a trial may take without an answer. It takes a few, and more where the driver has to compile candle's kernels
/// first.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the variable `WAN_RUN_KERNELS` asks for.
#[derive(Debug, Clone, PartialEq)]
enum Choice {
    /// The GPU's own kernels where they are right.
    Auto,
    /// The GPU's own kernels untried, but for those of some ops.
    AllBut(Vec<SpecialKernels>),
}

impl Choice {
    fn of_environment() -> Outcome<Self> {
        let text = std::env::var_os("WAN_RUN_KERNELS").unwrap_or_default();
        Self::parse(&text.to_string_lossy())
    }

    fn parse(text: &str) -> Outcome<Self> {
        let ops = match text {
            "" | "auto" => return Ok(Self::Auto),
            "all" => Some(Vec::new()),
            "portable" => Some(SpecialKernels::ALL.into()),
            _ => text
                .strip_prefix("portable:")
                .and_then(|ops| ops.split(',').map(SpecialKernels::named).collect()),
        };
        ops.map(Self::AllBut).ok_or_else(|| {
            Failure::usage(format!(
                "WAN_RUN_KERNELS: found `{text}`, expected auto, all, portable, portable:attention or portable:conv3d"
            ))
        })
    }
}

/// Leaves out the kernels that `WAN_RUN_KERNELS` names: for finding faults, and no option of any command. To be called before
/// a GPU is opened.
///
/// Errors: exit 2 for an unknown value.
pub fn choose() -> Outcome {
    if let Choice::AllBut(ops) = Choice::of_environment()? {
        use_portable_kernels(&ops);
    }
    Ok(())
}

/// Tries the GPU's own kernels in a process of their own, which they may hang or bring down, once for each GPU, driver and
/// set of kernels; leaves out those that are wrong, and returns what was found. Nothing is tried on the CPU, nor where
/// `WAN_RUN_KERNELS` says what to use. To be called when `device` is open and nothing was computed on it; `choice` is what
/// opened it, and `note` tells the user what is done and found.
///
/// Errors: a GPU that cannot be used.
pub fn settle(
    device: &Device,
    choice: DeviceChoice,
    note: impl Fn(&str),
) -> Outcome<Vec<(SpecialKernels, Verdict)>> {
    static SETTLED: Mutex<BTreeMap<String, Vec<(SpecialKernels, Verdict)>>> = Mutex::new(BTreeMap::new());
    if Choice::of_environment()? != Choice::Auto {
        return Ok(Vec::new());
    }
    let Some(machine) = special_kernels_on(device) else { return Ok(Vec::new()) };
    let mut settled = SETTLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = settled.get(&machine) {
        return Ok(found.clone());
    }
    let ops = special_kernels(device)?;
    let mut verdicts = Verdicts::read(dirs::cache_dir(), machine.clone());
    let untried: Vec<_> = ops.iter().copied().filter(|op| verdicts.get(*op).is_none()).collect();
    if !untried.is_empty() {
        note("trying this GPU's own kernels, as is done once on a machine: some seconds");
        let found = match std::env::current_exe() {
            Ok(program) => trial::try_all(|ops| command(&program, choice, ops), &untried, PATIENCE),
            Err(error) => trial::none(&untried, &format!("the program is not found: {error}")),
        };
        if let Err(error) = verdicts.keep(found) {
            note(&format!("what was found of this GPU's own kernels is not kept: {error}"));
        }
    }
    let found: Vec<_> = ops.iter().filter_map(|op| Some((*op, verdicts.get(*op)?.clone()))).collect();
    for (op, verdict) in &found {
        if matches!(verdict, Verdict::Wrong(_)) {
            use_portable_kernels(&[*op]);
        }
        if let Some(text) = verdict.told(*op, verdicts.file()) {
            note(&text);
        }
    }
    settled.insert(machine, found.clone());
    Ok(found)
}

/// The process that tries kernels.
fn command(program: &std::path::Path, choice: DeviceChoice, ops: &[SpecialKernels]) -> Command {
    let device = match choice {
        DeviceChoice::Cuda(ordinal) => DeviceChoice::Cuda(ordinal),
        DeviceChoice::Auto | DeviceChoice::Cpu => DeviceChoice::Cuda(0),
    };
    let mut command = Command::new(program);
    command.env("WAN_RUN_KERNELS", "all").args(["trial", "--device", &device.to_string()]);
    command.args(ops.iter().map(|op| op.name()));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_named() {
        let portable = |ops: &[SpecialKernels]| Choice::AllBut(ops.to_vec());
        for (text, choice) in [
            ("", Choice::Auto),
            ("auto", Choice::Auto),
            ("all", portable(&[])),
            ("portable", portable(&SpecialKernels::ALL)),
            ("portable:conv3d", portable(&[SpecialKernels::Conv3d])),
            ("portable:attention,conv3d", portable(&SpecialKernels::ALL)),
        ] {
            assert_eq!(Choice::parse(text).unwrap(), choice, "{text}");
        }
        for text in ["fast", "portable:", "portable:norm", "portable:conv3d,"] {
            assert!(Choice::parse(text).unwrap_err().message.contains(&format!("found `{text}`")));
        }
    }

    #[test]
    fn the_process_tries_on_the_same_device_whatever_the_environment_says() {
        let ops = SpecialKernels::ALL;
        let command = command("wan-run".as_ref(), DeviceChoice::Cuda(1), &ops);
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["trial", "--device", "cuda:1", "attention", "conv3d"]);
        let all = ("WAN_RUN_KERNELS".as_ref(), Some("all".as_ref()));
        assert!(command.get_envs().any(|variable| variable == all));
    }

    #[test]
    fn the_cpu_has_no_kernels_of_its_own() {
        let note = |text: &str| panic!("{text}");
        assert_eq!(settle(&Device::Cpu, DeviceChoice::Cpu, note).unwrap(), []);
    }
}
