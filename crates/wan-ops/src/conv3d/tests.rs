use candle_core::DType;

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};

fn layer(spec: ConvSpec) -> Conv3d {
    let [kt, kh, kw] = spec.kernel;
    let weight = random(&[spec.outputs, spec.inputs, kt, kh, kw], 1);
    let weight = Stored::from_tensor("test.weight", &weight).unwrap();
    Conv3d::new(spec, weight, random(&[spec.outputs], 2)).unwrap()
}

#[track_caller]
fn check(spec: ConvSpec, [t, h, w]: [usize; 3], history: usize, with_residual: bool) {
    let layer = layer(spec);
    let x = random(&[t, h, w, spec.inputs], 3);
    let history = (history > 0).then(|| random(&[history, h, w, spec.inputs], 4));
    let out = spec.output([t, h, w]).unwrap();
    let residual = with_residual.then(|| random(&[out[0], out[1], out[2], spec.outputs], 5));
    let found = layer.forward(&x, history.as_ref(), residual.as_ref()).unwrap();
    let want = layer.reference(&x, history.as_ref(), residual.as_ref()).unwrap();
    assert_close(&found, &want, 1e-5);
}

#[test]
fn causal_convolutions_equal_the_reference() {
    for (inputs, outputs) in [(1, 1), (3, 16), (16, 3), (16, 16), (32, 32), (20, 70), (96, 96)] {
        check(ConvSpec::causal(inputs, outputs, [3, 3, 3]), [2, 9, 13], 2, true);
    }
    check(ConvSpec::causal(384, 48, [3, 3, 3]), [1, 3, 5], 1, false);
    check(ConvSpec::causal(8, 16, [1, 1, 1]), [3, 5, 7], 0, false);
    check(ConvSpec::causal(130, 20, [3, 1, 1]), [3, 5, 7], 2, false);
    check(ConvSpec::causal(16, 16, [1, 3, 3]), [1, 40, 200], 0, true); // several blocks each way
}

#[test]
fn history_of_any_length_stands_in_front() {
    for history in 0..5 {
        check(ConvSpec::causal(4, 6, [3, 3, 3]), [2, 4, 5], history, false);
        check(ConvSpec::causal(4, 6, [3, 1, 1]), [1, 4, 5], history, true);
    }
}

/// A video convolved in chunks, each with the one before as history, equals the whole.
#[test]
fn chunks_equal_the_whole() {
    let layer = layer(ConvSpec::causal(5, 7, [3, 3, 3]));
    let x = random(&[5, 6, 7, 5], 6);
    let whole = layer.forward(&x, None, None).unwrap();
    let parts = [
        layer.forward(&x.narrow(0, 0, 1).unwrap(), None, None).unwrap(),
        layer.forward(&x.narrow(0, 1, 2).unwrap(), Some(&x.narrow(0, 0, 1).unwrap()), None).unwrap(),
        layer.forward(&x.narrow(0, 3, 2).unwrap(), Some(&x.narrow(0, 1, 2).unwrap()), None).unwrap(),
    ];
    assert_close(&Tensor::cat(&parts, 0).unwrap(), &whole, 1e-6);
}

#[test]
fn strides_padding_and_upsampling_equal_the_reference() {
    let down = ConvSpec { stride: [1, 2, 2], padding: [0, 1, 0, 1], ..ConvSpec::causal(10, 12, [1, 3, 3]) };
    check(down, [2, 8, 10], 0, false);
    check(down, [1, 9, 11], 0, false);
    let time = ConvSpec { stride: [2, 1, 1], front: 1, ..ConvSpec::causal(6, 6, [3, 1, 1]) };
    check(time, [4, 3, 5], 1, false);
    check(time, [4, 3, 5], 0, false);
    let up = ConvSpec { upsample: true, ..ConvSpec::causal(12, 6, [1, 3, 3]) };
    check(up, [2, 5, 7], 0, false);
    check(up, [1, 20, 90], 0, true);
    let far = ConvSpec { padding: [3, 2, 4, 5], ..ConvSpec::causal(2, 3, [1, 3, 3]) };
    check(far, [1, 2, 3], 0, false); // lines that are padding only
}

#[test]
fn takes_strided_and_half_inputs() {
    let layer = layer(ConvSpec::causal(6, 8, [3, 3, 3]));
    let (x, history, residual) =
        (random(&[2, 5, 6, 6], 7), random(&[2, 5, 6, 6], 8), random(&[2, 5, 6, 8], 9));
    let want = layer.reference(&x, Some(&history), Some(&residual)).unwrap();
    let found = layer.forward(&strided(&x), Some(&strided(&history)), Some(&strided(&residual))).unwrap();
    assert_close(&found, &want, 1e-5);
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    let found = layer.forward(&half(&x), Some(&half(&history)), Some(&half(&residual))).unwrap();
    assert_close(&found, &half(&want), 1e-2);
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let layer = layer(ConvSpec::causal(16, 20, [3, 3, 3]));
    let x = random(&[2, 17, 30, 16], 10);
    assert_thread_count_is_irrelevant(|| layer.forward(&x, None, None).unwrap());
}

#[test]
fn mismatched_arguments_are_refused_by_name() {
    let layer = layer(ConvSpec::causal(4, 4, [3, 3, 3]));
    let x = random(&[1, 5, 5, 4], 11);
    let message = |r: Result<Tensor>| r.unwrap_err().to_string();
    assert!(message(layer.forward(&random(&[1, 5, 5, 3], 1), None, None)).contains("test.weight"));
    assert!(message(layer.forward(&x, Some(&random(&[2, 5, 4, 4], 1)), None)).contains("history"));
    assert!(message(layer.forward(&x, Some(&random(&[5, 4, 4], 1)), None)).contains("history"));
    assert!(message(layer.forward(&x, None, Some(&random(&[2, 5, 5, 4], 1)))).contains("residual"));
}
