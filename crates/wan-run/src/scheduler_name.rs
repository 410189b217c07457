//! `--scheduler`: its help and its errors name ComfyUI's solvers by their two parts, as one by one they would fill a screen.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};
use wan_models::nearest_name;
use wan_sampler::SchedulerKind;

/// Takes the name of a solver.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerName;

impl SchedulerName {
    pub fn help() -> String {
        format!(
            "Solver [default: the model's, usually dpm++]; ComfyUI-WanVideoWrapper's {}. The wrapper's /beta spaces the sigmas \
             of the name before it anew; lcm and flowmatch_distill are for distilled models",
            SchedulerKind::names()
        )
    }
}

impl TypedValueParser for SchedulerName {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let name = value.to_string_lossy();
        if name.parse::<SchedulerKind>().is_ok() {
            return Ok(name.into_owned());
        }
        let mut error = Error::new(ErrorKind::InvalidValue).with_cmd(command);
        if let Some(arg) = arg {
            error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
        }
        let known = SchedulerKind::WRAPPER.map(SchedulerKind::name).into_iter().chain(["SAMPLER/SCHEDULER"]);
        let known = known.map(str::to_owned).collect();
        error.insert(ContextKind::ValidValue, ContextValue::Strings(known));
        if let Some(near) = nearest_name(&name, SchedulerKind::ALL.into_iter().map(SchedulerKind::name)) {
            error.insert(ContextKind::SuggestedValue, ContextValue::String(near.to_owned()));
        }
        error.insert(ContextKind::InvalidValue, ContextValue::String(name.into_owned()));
        Err(error)
    }

    /// For the completion of shells.
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(SchedulerKind::ALL.into_iter().map(|kind| PossibleValue::new(kind.name()))))
    }
}
