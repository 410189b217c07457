//! Sigmas spaced by the quantiles of a beta distribution, closer together at both ends than in the middle.
//!
//! The wrapper's; ComfyUI's own scheduler `beta` takes the quantiles alone.
//!
//! Sources: Lee et al., 2024, arXiv 2407.12173; ComfyUI-WanVideoWrapper `wanvideo/schedulers/fm_solvers.py` and diffusers
//! `schedulers/scheduling_flow_match_euler_discrete.py`, `_convert_to_beta`, which apply it after the shift.

use statrs::function::beta::inv_beta_reg;

/// Both parameters of the distribution.
const SHAPE: f64 = 0.6;

/// As many sigmas between the first and the last one given, which both stay: `last + q(p) (first - last)` with `p` from
/// 1 to 0 in equal steps.
pub(crate) fn beta_spaced(sigmas: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    let sigmas: Vec<f64> = sigmas.collect();
    let (steps, first, last) = (sigmas.len(), sigmas[0], sigmas[sigmas.len() - 1]);
    (0..steps).map(move |i| {
        let p = match i {
            0 => 1.0,
            _ if i == steps - 1 => 0.0,
            _ => 1.0 - i as f64 * (1.0 / (steps - 1) as f64),
        };
        last + quantile(p) * (first - last)
    })
}

/// The value below which a share `p` of the distribution lies.
pub(crate) fn quantile(p: f64) -> f64 {
    // By symmetry. One bit below it, the sigma in the middle could be truncated to another timestep.
    if p == 0.5 { 0.5 } else { inv_beta_reg(SHAPE, SHAPE, p) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.beta.ppf(p, 0.6, 0.6)` of scipy 1.18.1.
    #[test]
    fn quantiles_equal_scipys() {
        #[rustfmt::skip]
        let rows = [
            (0.0, 0.0), (0.001, 1.855873851745199e-5), (0.25, 0.17568037865269498), (1.0 / 3.0, 0.2754132907776234), (0.5, 0.5),
            (0.6, 0.6372990092467856), (0.9, 0.9604155944112192), (0.999, 0.9999814412614826), (1.0, 1.0),
        ];
        for (p, expected) in rows {
            let found = quantile(p);
            assert!((found - expected).abs() <= 1e-14 * expected, "{p}: {found}, expected {expected}");
        }
    }

    #[test]
    fn both_ends_stay_and_steps_are_short_there() {
        let spaced: Vec<f64> = beta_spaced((0..9).map(|i| 1.0 - f64::from(i) / 10.0)).collect();
        assert!((spaced[0] - 1.0).abs() < 1e-15 && (spaced[8] - 0.2).abs() < 1e-15, "{spaced:?}");
        let widths: Vec<f64> = spaced.windows(2).map(|pair| pair[0] - pair[1]).collect();
        for i in 0..3 {
            assert!(widths[i] < widths[i + 1] && widths[7 - i] < widths[6 - i], "{widths:?}");
        }
        assert_eq!(beta_spaced(std::iter::once(0.7)).collect::<Vec<_>>(), [0.7]);
    }
}
