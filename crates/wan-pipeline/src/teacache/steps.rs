//! Which steps reuse what the blocks added before.

use super::TeaCache;
use super::coefficients::Coefficients;

/// How far each step's signal is from that of the step before, `mean|s - p| / mean|p|`, under the polynomial if there is
/// one; 0 for the first.
pub(super) fn distances(signals: &[Vec<f32>], polynomial: Option<&Coefficients>) -> Vec<f64> {
    let apart = |pair: &[Vec<f32>]| {
        let values = pair[0].iter().zip(&pair[1]);
        let moved: f64 = values.map(|(p, s)| (f64::from(*s) - f64::from(*p)).abs()).sum();
        let size: f64 = pair[0].iter().map(|p| f64::from(p.abs())).sum();
        let distance = moved / size;
        polynomial.map_or(distance, |coefficients| coefficients.iter().fold(0.0, |sum, c| sum * distance + c))
    };
    std::iter::once(0.0).chain(signals.windows(2).map(apart)).take(signals.len()).collect()
}

/// For each step, whether it reuses what the blocks added in the last computed one: while the distances since then add up
/// to less than the threshold. A polynomial may be negative, and then the sum falls.
///
/// `contexts`: how many contexts each step runs for. One that needs more than the last computed step had is computed.
pub(super) fn reused(options: &TeaCache, distances: &[f64], contexts: &[usize]) -> Vec<bool> {
    let (start, end) = options.range(distances.len());
    let (mut sum, mut kept) = (0.0, 0);
    let step = |(step, (distance, contexts)): (usize, (&f64, &usize))| {
        sum += distance;
        let near = options.threshold > 0.0 && sum < options.threshold;
        if start < step && step <= end && near && *contexts <= kept {
            return true;
        }
        (sum, kept) = (0.0, *contexts);
        false
    };
    distances.iter().zip(contexts).enumerate().map(step).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::coefficients::tests::of;
    use super::super::{TeaCache, TeaCacheMode};
    use super::*;

    const X: bool = false;
    const R: bool = true;

    fn raw(threshold: f64, start: usize, end: usize) -> TeaCache {
        TeaCache { threshold, mode: TeaCacheMode::Raw, start: Some(start), end: Some(end) }
    }

    /// The published forward itself made the list: `tests/golden/golden_teacache.py`.
    #[test]
    fn steps_are_those_of_the_reference() {
        let path = wan_core::testkit::repo_path("tests/golden/teacache/steps.json");
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut computed, mut reused_some) = (0, 0);
        for case in cases.as_array().unwrap() {
            let mode: TeaCacheMode = case["mode"].as_str().unwrap().parse().unwrap();
            let polynomial = of(case["model"].as_str().unwrap(), mode);
            let coefficients: Coefficients = serde_json::from_value(case["coefficients"].clone()).unwrap();
            assert_eq!(*polynomial, coefficients, "{case}");
            let signals: Vec<Vec<f32>> = serde_json::from_value(case["signals"].clone()).unwrap();
            let expected: Vec<bool> = serde_json::from_value(case["computed"].clone()).unwrap();
            let threshold = case["threshold"].as_f64().unwrap();
            let options = TeaCache { threshold, mode, start: None, end: None };
            let found = reused(&options, &distances(&signals, Some(polynomial)), &vec![2; signals.len()]);
            assert_eq!(found.iter().map(|reused| !reused).collect::<Vec<_>>(), expected, "{case}");
            computed += expected.iter().filter(|c| **c).count();
            reused_some += expected.iter().filter(|c| !**c).count();
        }
        assert!(computed > 200 && reused_some > 200, "the cases tell nothing");
    }

    #[test]
    fn distances_add_up_to_the_threshold_and_begin_anew() {
        let distances = [0.0, 0.0625, 0.0625, 0.0625, 0.125, 0.25, 0.0, 0.0];
        let found = reused(&raw(0.1875, 0, 7), &distances, &[1; 8]);
        // 1/16, 2/16, 3/16 (not below: computed), 2/16, 4/16 (computed), 0, 0.
        assert_eq!(found, [X, R, R, X, R, X, R, R]);
        assert_eq!(reused(&raw(0.1875, 2, 6), &distances, &[1; 8]), [X, X, X, R, X, X, R, X]);
        assert_eq!(reused(&raw(1.0, 5, 3), &distances, &[1; 8]), [X; 8]);
        assert_eq!(reused(&raw(1.0, 9, 9), &distances, &[1; 8]), [X; 8]);
        assert_eq!(reused(&raw(1.0, 0, 999), &distances[..1], &[1]), [X]);
    }

    #[test]
    fn threshold_0_computes_every_step_even_where_the_polynomial_is_negative() {
        let distances = [0.0, -0.2, -0.2, -0.2];
        assert_eq!(reused(&raw(0.0, 0, 3), &distances, &[2; 4]), [X; 4]);
        assert_eq!(reused(&raw(0.01, 0, 3), &distances, &[2; 4]), [X, R, R, R]);
    }

    #[test]
    fn a_step_that_has_no_earlier_pass_of_its_own_is_computed() {
        let distances = [0.0; 6];
        assert_eq!(reused(&raw(0.5, 0, 5), &distances, &[1, 1, 2, 2, 1, 1]), [X, R, X, R, R, R]);
        // Behind guidance the conditional pass of the guided step is reused; back in it nothing is there to reuse.
        assert_eq!(
            reused(&raw(0.5, 0, 5), &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[2, 2, 1, 1, 1, 2]),
            [X, X, R, X, R, X]
        );
    }

    #[test]
    fn distances_are_relative_to_the_step_before() {
        let signals = [vec![1.0, -3.0], vec![2.0, -3.0], vec![2.0, -4.0]];
        assert_eq!(distances(&signals, None), [0.0, 0.25, 0.2]);
        // 2 d - 1
        assert_eq!(distances(&signals, Some(&[0.0, 0.0, 0.0, 2.0, -1.0])), [0.0, -0.5, -0.6]);
        assert_eq!(distances(&[], None), Vec::<f64>::new());
    }
}
