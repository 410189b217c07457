use candle_core::{DType, Tensor};

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};
use crate::{QuantisedRows, quantise};

const F32: RowFormat = RowFormat::Float(DType::F32);

/// Sum and normalised rows.
fn floats(results: Result<(Tensor, Rows)>) -> (Tensor, Tensor) {
    let (sum, normed) = results.unwrap();
    (sum, normed.into_values().unwrap())
}

#[test]
fn equals_the_reference() {
    for shape in [vec![1, 1], vec![3, 7], vec![2, 5, 64], vec![33, 1536], vec![1, 5120]] {
        let dim = shape[shape.len() - 1];
        // Off centre: a variance as difference of squares would lose digits.
        let x = (random(&shape, 1) + 20.0).unwrap();
        let (a, b) = (random(&[dim], 2), random(&[dim], 3));
        for affine in [
            Affine::None,
            Affine::Weights { weight: &a, bias: &b },
            Affine::Modulation { shift: &a, scale: &b },
        ] {
            let found = layer_norm(&x, 1e-6, affine).unwrap();
            assert_close(&found, &layer_norm_reference(&x, 1e-6, affine).unwrap(), 1e-5);
        }
    }
}

#[test]
fn residual_forms_equal_the_reference() {
    for (l, dim) in [(1, 1), (5, 33), (40, 1536)] {
        let (x, y, gate) = (random(&[l, dim], 4), random(&[l, dim], 5), random(&[dim], 6));
        let affine = Affine::Modulation { shift: &gate, scale: &gate };
        for gate in [None, Some(&gate)] {
            let want = gated_residual_reference(&x, &y, gate).unwrap();
            assert_close(&gated_residual(&x, &y, gate).unwrap(), &want, 1e-6);
            let (sum, normed) = floats(residual_layer_norm(&x, &y, gate, 1e-6, affine, F32));
            assert_close(&sum, &want, 1e-6);
            assert_close(&normed, &layer_norm_reference(&want, 1e-6, affine).unwrap(), 1e-5);
        }
    }
}

#[test]
fn takes_strided_and_half_inputs() {
    let (x, y) = (random(&[9, 48], 7), random(&[9, 48], 8));
    let want = layer_norm_reference(&x, 1e-5, Affine::None).unwrap();
    assert_close(&layer_norm(&strided(&x), 1e-5, Affine::None).unwrap(), &want, 1e-5);
    let sum = gated_residual_reference(&x, &y, None).unwrap();
    let (found, normed) =
        floats(residual_layer_norm(&strided(&x), strided(&y), None, 1e-5, Affine::None, F32));
    assert_close(&found, &sum, 1e-6);
    assert_close(&normed, &layer_norm_reference(&sum, 1e-5, Affine::None).unwrap(), 1e-5);
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    assert_close(&layer_norm(&half(&x), 1e-5, Affine::None).unwrap(), &half(&want), 1e-2);
    assert_close(&gated_residual(&half(&x), half(&y), None).unwrap(), &half(&sum), 1e-2);
    // The normalised rows may have another dtype than the stream.
    let (_, normed) =
        floats(residual_layer_norm(&x, half(&y), None, 1e-5, Affine::None, RowFormat::Float(DType::BF16)));
    assert_close(&normed, &half(&layer_norm_reference(&sum, 1e-5, Affine::None).unwrap()), 1e-2);
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let x = random(&[70, 640], 9);
    assert_thread_count_is_irrelevant(|| layer_norm(&x, 1e-6, Affine::None).unwrap());
    assert_thread_count_is_irrelevant(|| {
        floats(residual_layer_norm(&x, &x, None, 1e-6, Affine::None, F32)).1
    });
}

#[test]
fn mismatched_arguments_are_refused_by_name() {
    let (x, short) = (random(&[2, 8], 1), random(&[7], 1));
    let affine = Affine::Modulation { shift: &short, scale: &short };
    assert!(layer_norm(&x, 1e-6, affine).unwrap_err().to_string().contains("modulation shift"));
    assert!(gated_residual(&x, &x, Some(&short)).unwrap_err().to_string().contains("gate"));
    let other = random(&[3, 8], 1);
    assert!(residual_layer_norm(&x, &other, None, 1e-6, Affine::None, F32).is_err());
}

/// Rows in FP8 are those of the float result, rounded; nothing else of it changes.
#[test]
fn rows_may_be_written_in_fp8() {
    for (l, dim) in [(1, 1), (5, 33), (40, 1536)] {
        let (x, y, gate) = (random(&[l, dim], 1), random(&[l, dim], 2), random(&[dim], 3));
        let affine = Affine::Modulation { shift: &gate, scale: &gate };
        let fp8 = RowFormat::Quantised(DType::F32);
        let (sum, normed) = floats(residual_layer_norm(&x, &y, Some(&gate), 1e-6, affine, F32));
        let (same, rows) = residual_layer_norm(&x, &y, Some(&gate), 1e-6, affine, fp8).unwrap();
        assert_close(&same, &sum, 0.0);
        assert_same(&rows, &quantise(&normed).unwrap());
        // Nothing added.
        let normed = layer_norm_rows(&sum, 1e-6, affine, F32).unwrap().into_values().unwrap();
        assert_close(&normed, &layer_norm(&sum, 1e-6, affine).unwrap(), 0.0);
        assert_same(&layer_norm_rows(&sum, 1e-6, affine, fp8).unwrap(), &quantise(&normed).unwrap());
    }
}

#[track_caller]
fn assert_same(found: &Rows, expected: &QuantisedRows) {
    let Rows::Quantised(found) = found else { panic!("{found:?}") };
    assert_close(found.scales(), expected.scales(), 0.0);
    assert_close(found.codes(), expected.codes(), 0.0);
}
