//! The noise levels of `flowmatch_distill`: those that step-distilled models are taught, near 1, at 3/4, 1/2 and 1/4
//! before the shift.
//!
//! Source: ComfyUI-WanVideoWrapper `wanvideo/schedulers/__init__.py`, get_scheduler, on a grid of 1000 steps of
//! `basic_flowmatch.py`.

use crate::grid::{GridValues, TRAIN_STEPS, shift_f32};
use crate::{Result, SamplerError, SchedulerKind};

const LEVELS: [f32; 4] = [0.999, 0.75, 0.5, 0.25];

/// The grid, in f32 with the operation order of the reference: sigmas are computed from the timesteps.
///
/// Errors: `FixedSteps` for any other number of steps than that of the levels.
pub(crate) fn distill_grid(steps: usize, flow_shift: f64) -> Result<GridValues> {
    if steps != LEVELS.len() {
        return Err(SamplerError::FixedSteps {
            scheduler: SchedulerKind::FlowMatchDistill,
            found: steps,
            expected: LEVELS.len(),
        });
    }
    let thousand = TRAIN_STEPS as f32;
    let timesteps: Vec<f32> = LEVELS.iter().map(|level| shift_f32(flow_shift, *level) * thousand).collect();
    let sigmas = timesteps.iter().map(|t| t / thousand).chain([0.0]).collect();
    Ok(GridValues { sigmas, timesteps })
}

#[cfg(test)]
mod tests {
    use crate::{Schedule, SchedulerKind::FlowMatchDistill};

    #[test]
    fn other_numbers_of_steps_are_refused() {
        for (steps, strength, found) in [(3, 1.0, 3), (6, 1.0, 6), (4, 0.5, 8)] {
            let message = Schedule::new(FlowMatchDistill, steps, 5.0, strength).unwrap_err().to_string();
            let expected = format!(
                "scheduler flowmatch_distill has a grid of 4 steps, found {found} (steps / denoise strength); \
                 use 4 steps and a denoise strength of 1"
            );
            assert_eq!(message, expected);
        }
        assert_eq!(Schedule::new(FlowMatchDistill, 2, 5.0, 0.5).unwrap().steps(), 3);
    }
}
