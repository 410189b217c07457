use candle_core::DType;

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};

#[test]
fn equals_the_reference() {
    for channels in [1, 3, 16, 32, 33, 96, 384] {
        let x = random(&[2, 3, 5, channels], 1);
        let gamma = random(&[channels], 2);
        for activation in [Activation::Identity, Activation::Silu] {
            let want = channel_rms_norm_reference(&x, &gamma, activation).unwrap();
            assert_close(&channel_rms_norm(&x, &gamma, activation).unwrap(), &want, 2e-6);
            assert_close(&channel_rms_norm(&strided(&x), &gamma, activation).unwrap(), &want, 2e-6);
            let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
            assert_close(&channel_rms_norm(&half(&x), &gamma, activation).unwrap(), &half(&want), 1e-2);
        }
    }
}

/// A voxel of zeros stays zero: its norm is limited from below.
#[test]
fn zeros_stay_zero() {
    for channels in [16, 20] {
        let x = random(&[4, channels], 3).zeros_like().unwrap();
        let y = channel_rms_norm(&x, &random(&[channels], 4), Activation::Silu).unwrap();
        assert_eq!(y.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let (x, gamma) = (random(&[5000, 16], 5), random(&[16], 6));
    assert_thread_count_is_irrelevant(|| channel_rms_norm(&x, &gamma, Activation::Silu).unwrap());
}

#[test]
fn a_wrong_gamma_is_refused_by_name() {
    let error = channel_rms_norm(&random(&[4, 8], 1), &random(&[7], 1), Activation::Silu).unwrap_err();
    assert!(error.to_string().contains("channel norm gamma"), "{error}");
}
