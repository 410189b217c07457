use candle_core::{DType, Device, Tensor};

use super::*;
use crate::testing::{assert_close, random, strided};

const ALL: [Activation; 4] =
    [Activation::Identity, Activation::GeluTanh, Activation::GeluErf, Activation::Silu];

#[test]
fn equals_the_reference() {
    for activation in ALL {
        for shape in [vec![1], vec![3, 17], vec![130, 257], vec![2, 3, 5, 7]] {
            let x = (random(&shape, 1) * 3.0).unwrap();
            assert_close(
                &activate(&x, activation).unwrap(),
                &activate_reference(&x, activation).unwrap(),
                1e-6,
            );
        }
        let x = strided(&random(&[5, 40], 2));
        assert_close(&activate(&x, activation).unwrap(), &activate_reference(&x, activation).unwrap(), 1e-6);
    }
}

/// Half types are widened and rounded once, which is nearer to the truth than candle's own half arithmetic.
#[test]
fn half_types_round_once() {
    for dtype in [DType::BF16, DType::F16] {
        for activation in ALL {
            let x = random(&[7, 33], 3).to_dtype(dtype).unwrap();
            let exact = activate_reference(&x.to_dtype(DType::F32).unwrap(), activation).unwrap();
            assert_close(
                &activate(&x, activation).unwrap(),
                &exact.to_dtype(dtype).unwrap(),
                if dtype == DType::BF16 { 4e-3 } else { 5e-4 },
            );
        }
    }
}

#[test]
fn integers_are_refused_by_name() {
    let x = Tensor::zeros(3, DType::U32, &Device::Cpu).unwrap();
    let error = activate(&x, Activation::Silu).unwrap_err().to_string();
    assert!(error.contains("activate") && error.contains("U32"), "{error}");
}
