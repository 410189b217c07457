//! Which of its scheduler's sigmas a `KSampler` runs.
//!
//! Sources: ComfyUI `comfy/samplers.py` (KSampler.set_steps, KSampler.calculate_sigmas), `comfy/k_diffusion/sampling.py`
//! (offset_first_sigma_for_snr).

use crate::grid::shift;
use crate::ksampler_sigmas::ksampler_sigmas;
use crate::unipc_ksampler::UniPcKSampler;
use crate::{ComfySampler, KSampler, Result, SamplerError, SchedulerKind};

/// Where `dpmpp_2m_sde` starts instead of at sigma 1, whose log-SNR is infinite; before the shift.
const SDE_TOP: f64 = 1.0 - 1e-4;

/// Above it `denoise` counts as 1.
const WHOLE: f64 = 0.9999;

/// The sigmas of a run, and of how many steps the grid is that they are the end of.
pub(crate) struct KSamplerGrid {
    pub(crate) sigmas: Vec<f32>,
    pub(crate) grid_steps: usize,
    /// The first sigma as the scheduler has it: the noise's factor at the start.
    pub(crate) noise_scale: f32,
}

/// The last `steps` steps of a grid of `steps / denoise`, or all that there are.
///
/// Errors: `GridUnusable` where a sigma is not a number, where the last one is not 0, and where `uni_pc` cannot tell two apart.
pub(crate) fn ksampler_grid(
    pair: KSampler,
    steps: usize,
    flow_shift: f64,
    denoise: f64,
) -> Result<KSamplerGrid> {
    let whole = denoise > WHOLE;
    let asked = if whole { steps } else { (steps as f64 / denoise) as usize };
    let all = scheduler_sigmas(pair, asked, flow_shift);
    let start = if whole { 0 } else { all.len().saturating_sub(steps + 1) };
    let mut sigmas = all[start..].to_vec();
    let noise_scale = sigmas[0];
    if pair.sampler == ComfySampler::DpmPpSde && sigmas[0] >= 1.0 {
        sigmas[0] = shift(flow_shift, SDE_TOP) as f32;
    }
    if let Some(reason) = unusable(pair, &sigmas) {
        let scheduler = SchedulerKind::KSampler(pair);
        return Err(SamplerError::GridUnusable { scheduler, steps: asked, shift: flow_shift, reason });
    }
    Ok(KSamplerGrid { sigmas, grid_steps: all.len() - 1, noise_scale })
}

/// `uni_pc` takes a grid of one step more and leaves out its last sigma above 0.
fn scheduler_sigmas(pair: KSampler, steps: usize, flow_shift: f64) -> Vec<f32> {
    let one_more = pair.sampler == ComfySampler::UniPc;
    let mut sigmas = ksampler_sigmas(pair.scheduler, steps + usize::from(one_more), flow_shift);
    if one_more && sigmas.len() > 2 {
        sigmas.remove(sigmas.len() - 2);
    }
    sigmas
}

fn unusable(pair: KSampler, sigmas: &[f32]) -> Option<String> {
    if let Some(index) = sigmas.iter().position(|sigma| !sigma.is_finite()) {
        return Some(format!("sigma {index} is not a number"));
    }
    match sigmas.last() {
        Some(0.0) => {}
        last => return Some(format!("the last sigma is {:e}, not 0", last.copied().unwrap_or_default())),
    }
    let decreasing = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
    if pair.sampler == ComfySampler::UniPc && decreasing {
        // Sigmas that are equal have an error of their own.
        let index = UniPcKSampler::unresolved(sigmas)?;
        return Some(format!("uni_pc cannot tell sigma {index}, {:e}, from the next", sigmas[index]));
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::Schedule;

    fn sigmas(name: &str, steps: usize, strength: f64) -> Vec<f32> {
        Schedule::new(name.parse().unwrap(), steps, 5.0, strength).unwrap().sigmas().to_vec()
    }

    fn refused(name: &str, steps: usize, shift: f64) -> String {
        Schedule::new(name.parse().unwrap(), steps, shift, 1.0).unwrap_err().to_string()
    }

    /// What lightx2v's four-step models were distilled for (`denoising_step_list` 1000, 750, 500, 250 at shift 5).
    #[test]
    fn four_steps_at_shift_5() {
        let schedule = Schedule::new("euler/simple".parse().unwrap(), 4, 5.0, 1.0).unwrap();
        assert_eq!(schedule.sigmas(), [1.0, 0.9375, 0.8333333, 0.625, 0.0]);
        assert_eq!(schedule.timesteps(), [1000.0, 937.5, 833.3333, 625.0]);
        assert_eq!(sigmas("dpmpp_2m/simple", 4, 1.0), schedule.sigmas());
    }

    #[test]
    fn uni_pc_leaves_the_last_sigma_of_one_step_more_out() {
        for scheduler in ["simple", "karras", "normal"] {
            let five = sigmas(&format!("euler/{scheduler}"), 5, 1.0);
            let expected = [&five[..4], &[0.0]].concat();
            assert_eq!(sigmas(&format!("uni_pc/{scheduler}"), 4, 1.0), expected);
        }
    }

    #[test]
    fn dpmpp_2m_sde_starts_below_1() {
        let (found, plain) = (sigmas("dpmpp_2m_sde/simple", 4, 1.0), sigmas("euler/simple", 4, 1.0));
        assert!((found[0] - 0.99998).abs() < 1e-7, "{}", found[0]);
        assert_eq!(found[1..], plain[1..]);
        // This one does by itself.
        assert_eq!(sigmas("dpmpp_2m_sde/ddim_uniform", 4, 1.0), sigmas("euler/ddim_uniform", 4, 1.0));
    }

    /// `denoise` of ComfyUI's sampler keeps the number of steps, unlike the wrapper's `denoise_strength`.
    #[test]
    fn a_share_of_the_grid_has_all_steps_asked_for() {
        let whole = sigmas("euler/simple", 16, 1.0);
        assert_eq!(sigmas("euler/simple", 10, 0.6), whole[6..]);
        // 50 steps are 51 of `ddim_uniform`.
        let schedule = Schedule::new("euler/ddim_uniform".parse().unwrap(), 30, 5.0, 1.0).unwrap();
        assert_eq!((schedule.steps(), schedule.grid_steps(), schedule.start_index()), (31, 31, 0));
        assert_eq!(sigmas("euler/ddim_uniform", 30, 0.99995).len(), 32);
        assert_eq!(sigmas("euler/ddim_uniform", 30, 0.6).len(), 31);
    }

    /// Noise is what is left of a sample at sigma 1; `dpmpp_2m_sde` still starts from all of it.
    #[test]
    fn noise_is_scaled_by_the_first_sigma() {
        let scale = |name: &str, steps, strength| {
            Schedule::new(name.parse().unwrap(), steps, 5.0, strength).unwrap().noise_scale()
        };
        assert_eq!(scale("dpmpp_2m_sde/karras", 4, 1.0), 1.0);
        assert_eq!(scale("euler/ddim_uniform", 4, 1.0), sigmas("euler/ddim_uniform", 4, 1.0)[0]);
        assert_eq!(scale("euler/simple", 10, 0.6), sigmas("euler/simple", 10, 0.6)[0]);
        assert_eq!(scale("dpm++", 10, 0.6), 1.0);
    }

    #[test]
    fn more_steps_than_the_table_has_sigmas() {
        assert_eq!(sigmas("euler/simple", 2000, 1.0).len(), 2001);
        for (name, steps) in [("dpmpp_2m/simple", 1001), ("uni_pc/simple", 1000)] {
            let message = refused(name, steps, 5.0);
            assert!(message.contains("strictly decreasing"), "{message}");
        }
        // These have no sigma twice.
        assert_eq!(sigmas("dpmpp_2m/ddim_uniform", 2000, 1.0).len(), 1000);
        let beta = sigmas("dpmpp_2m/beta", 2000, 1.0).len();
        assert!((500..=1001).contains(&beta), "{beta}");
    }

    #[test]
    fn grids_that_cannot_be_run_are_told() {
        let message = refused("euler/kl_optimal", 1, 5.0);
        let start =
            "scheduler euler/kl_optimal cannot run its sigmas of 1 steps at shift 5: sigma 0 is not a number";
        assert!(message.starts_with(start), "{message}");
        for name in ["lcm/normal", "dpmpp_2m/normal"] {
            let message = refused(name, 10, 0.09);
            assert!(message.contains("the last sigma is 8.1"), "{message}");
        }
        assert!(refused("euler/ddim_uniform", 10, 0.004).contains("the last sigma is"));
        // Both are 0.001, which `uni_pc` takes for 0, in its arithmetic.
        let message = refused("uni_pc/exponential", 400, 1.0);
        assert!(message.contains("uni_pc cannot tell sigma"), "{message}");
        for name in ["uni_pc/kl_optimal", "euler/exponential"] {
            assert!(Schedule::new(name.parse().unwrap(), 1, 5.0, 1.0).is_ok(), "{name}");
        }
    }
}
