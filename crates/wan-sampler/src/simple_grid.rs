//! ComfyUI's scheduler `simple`: sigmas picked from the model's table at equal distances.
//!
//! Sources: ComfyUI `comfy/samplers.py` (simple_scheduler, KSampler), `comfy/model_sampling.py` (ModelSamplingDiscreteFlow),
//! `comfy/k_diffusion/sampling.py` (offset_first_sigma_for_snr).

use crate::SchedulerKind;
use crate::grid::{GridValues, TRAIN_STEPS, scaled, shift, shift_f32};

/// Sigmas in the model's table, that of the smallest noise first.
const TABLE_LEN: usize = 1000;

/// Where `dpmpp_2m_sde` starts instead of at sigma 1, whose log-SNR is infinite; before the shift.
const SDE_TOP: f64 = 1.0 - 1e-4;

/// The grid of `steps` steps: entries 1000, 1000 - 1000/N, 1000 - 2000/N, ... of the table, fractions rounded up.
///
/// `uni_pc` takes a grid of one step more and leaves out its last sigma above 0.
pub(crate) fn simple_grid(scheduler: SchedulerKind, steps: usize, flow_shift: f64) -> GridValues {
    let one_more = scheduler == SchedulerKind::UniPcSimple;
    let stride = TABLE_LEN as f64 / (steps + usize::from(one_more)) as f64;
    let sigmas = (0..steps).map(|i| table(TABLE_LEN - 1 - (i as f64 * stride) as usize, flow_shift));
    let is_sde = scheduler == SchedulerKind::DpmPpSdeSimple;
    scaled(sigmas.map(|sigma| match is_sde && sigma >= 1.0 {
        true => shift(flow_shift, SDE_TOP) as f32,
        false => sigma,
    }))
}

/// An entry of the table, in f32 with the operation order of the reference.
fn table(index: usize, flow_shift: f64) -> f32 {
    let thousand = TRAIN_STEPS as f32;
    let time = (index + 1) as f32 / TABLE_LEN as f32 * thousand;
    shift_f32(flow_shift, time / thousand)
}

#[cfg(test)]
mod tests {
    use SchedulerKind::{DpmPp2MSimple, DpmPpSdeSimple, EulerSimple, UniPcSimple};

    use super::*;
    use crate::Schedule;

    fn sigmas(kind: SchedulerKind, steps: usize, strength: f64) -> Vec<f32> {
        Schedule::new(kind, steps, 5.0, strength).unwrap().sigmas().to_vec()
    }

    /// What lightx2v's four-step models were distilled for (`denoising_step_list` 1000, 750, 500, 250 at shift 5).
    #[test]
    fn four_steps_at_shift_5() {
        let schedule = Schedule::new(EulerSimple, 4, 5.0, 1.0).unwrap();
        assert_eq!(schedule.sigmas(), [1.0, 0.9375, 0.8333333, 0.625, 0.0]);
        assert_eq!(schedule.timesteps(), [1000.0, 937.5, 833.3333, 625.0]);
        assert_eq!(sigmas(DpmPp2MSimple, 4, 1.0), schedule.sigmas());
    }

    #[test]
    fn uni_pc_leaves_the_last_sigma_of_one_step_more_out() {
        let five = sigmas(EulerSimple, 5, 1.0);
        assert_eq!(sigmas(UniPcSimple, 4, 1.0), [&five[..4], &[0.0]].concat());
    }

    #[test]
    fn dpmpp_2m_sde_starts_below_1() {
        let (found, plain) = (sigmas(DpmPpSdeSimple, 4, 1.0), sigmas(EulerSimple, 4, 1.0));
        assert!((found[0] - 0.99998).abs() < 1e-7, "{}", found[0]);
        assert_eq!(found[1..], plain[1..]);
    }

    /// `denoise` of ComfyUI's sampler keeps the number of steps, unlike the wrapper's `denoise_strength`.
    #[test]
    fn a_share_of_the_grid_has_all_steps_asked_for() {
        let whole = sigmas(EulerSimple, 16, 1.0);
        assert_eq!(sigmas(EulerSimple, 10, 0.6), whole[6..]);
    }

    #[test]
    fn more_steps_than_the_table_has_sigmas_are_for_euler_alone() {
        assert_eq!(sigmas(EulerSimple, 2000, 1.0).len(), 2001);
        for (kind, steps) in [(DpmPp2MSimple, 1001), (UniPcSimple, 1000)] {
            let message = Schedule::new(kind, steps, 5.0, 1.0).unwrap_err().to_string();
            assert!(message.contains("strictly decreasing"), "{message}");
        }
    }
}
