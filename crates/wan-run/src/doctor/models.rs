//! Which models are here, and whether the wanted one fits into this machine.

use candle_core::{DType, Device};
use wan_models::{Description, ModelFiles, ModelType, Registry};
use wan_pipeline::{Budget, Pipeline, Plan, Processor};

use super::report::{Check, Report};
use crate::error::{Failure, Outcome};
use crate::options::Options;

const NAME: &str = "model";

/// The models that are here and the one that shall run.
pub(super) fn check(report: &mut Report, options: &Options, registry: &Registry, is_named: bool) {
    let places = match options.places() {
        Ok(places) => places,
        Err(failure) => {
            return report.add(Check::fail(
                "models",
                failure.line(),
                "correct the list, or name another with --extra-model-paths",
            ));
        }
    };
    let here: Vec<&str> = registry
        .models()
        .iter()
        .filter(|model| registry.resolve(model, &places).is_ok())
        .map(|model| model.name.as_str())
        .collect();
    report.add(Check::ok("models", here.join(", ")));
    let name = &options.model.name;
    report.add(match registry.resolve(&options.model, &places) {
        Ok(files) => match planned(files, options) {
            Ok(summary) => Check::ok(NAME, format!("{name}: {summary}")),
            Err(failure) => Check::fail(NAME, format!("{name}: {}", failure.line()), "see `wan-run info`"),
        },
        Err(error) => {
            let pull = Description::Model(Box::new(options.model.clone())).argument();
            let advice = format!("run `wan-run models pull {pull}`, or use --models-dir or --model tiny");
            let found = error.finding(); // names the model
            if is_named { Check::fail(NAME, found, advice) } else { Check::warn(NAME, found, advice) }
        }
    });
}

/// What a job with the model's defaults takes on this machine, its files opened and checked.
fn planned(files: ModelFiles, options: &Options) -> Outcome<String> {
    let size = (options.request.width, options.request.height);
    let image = (options.model.model_type == ModelType::I2v).then_some(size);
    let plan = Plan::new(options.request.clone(), options.model.model_type, image)?;
    let device = options.device.open()?.device;
    let processor = if device.is_cuda() { Processor::Gpu } else { Processor::Cpu };
    let free = wan_core::device::free_bytes(&device);
    let budget = Budget::of_this_machine(processor, options.limits, free);
    // Headers are all that is read.
    let memory = Pipeline::open(files, Device::Cpu, DType::F32)?.memory_within(&plan, budget)?;
    memory.check().map_err(Failure::from)?;
    Ok(format!("{}x{}, {} frames, {}", plan.width, plan.height, plan.frames, memory.summary()))
}
