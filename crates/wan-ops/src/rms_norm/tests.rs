use candle_core::DType;

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};

#[test]
fn equals_the_reference() {
    for shape in [vec![1, 1], vec![3, 7], vec![2, 5, 64], vec![33, 1536], vec![4096]] {
        let x = random(&shape, 1);
        let weight = random(&shape[shape.len() - 1..], 2);
        let found = rms_norm(&x, &weight, 1e-6).unwrap();
        assert_close(&found, &rms_norm_reference(&x, &weight, 1e-6).unwrap(), 2e-6);
    }
}

#[test]
fn rotation_equals_the_reference() {
    for (l, dim, half) in [(1, 2, 1), (7, 30, 5), (50, 1536, 64), (50, 256, 32)] {
        let (x, weight, rope) = (random(&[l, dim], 3), random(&[dim], 4), random(&[l, half, 2], 5));
        let want = rope_reference(&rms_norm_reference(&x, &weight, 1e-6).unwrap(), &rope).unwrap();
        assert_close(&rms_norm_rope(&x, &weight, 1e-6, &rope).unwrap(), &want, 2e-6);
        assert_close(&rms_norm_rope(strided(&x), &weight, 1e-6, &strided(&rope)).unwrap(), &want, 2e-6);
    }
}

#[test]
fn takes_half_inputs() {
    let (x, weight) = (random(&[9, 48], 6), random(&[48], 7));
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    let want = half(&rms_norm_reference(&x, &weight, 1e-6).unwrap());
    assert_close(&rms_norm(half(&x), &weight, 1e-6).unwrap(), &want, 1e-2);
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let (x, weight, rope) = (random(&[70, 640], 8), random(&[640], 9), random(&[70, 32, 2], 10));
    assert_thread_count_is_irrelevant(|| rms_norm_rope(&x, &weight, 1e-6, &rope).unwrap());
}

#[test]
fn mismatched_arguments_are_refused_by_name() {
    let (x, weight) = (random(&[4, 12], 1), random(&[12], 1));
    assert!(rms_norm(&x, &random(&[11], 1), 1e-6).unwrap_err().to_string().contains("rms norm weight"));
    for rope in [[3, 6, 2], [4, 5, 2], [4, 6, 1]] {
        let error = rms_norm_rope(&x, &weight, 1e-6, &random(&rope, 1)).unwrap_err().to_string();
        assert!(error.contains("rope table"), "{error}");
    }
}
