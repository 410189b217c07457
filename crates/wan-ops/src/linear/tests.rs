use candle_core::{DType, Device};
use half::{bf16, f16};
use wan_core::weights::Bytes;

use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};

/// A weight as a file would hold it, after `skip` bytes that spoil the alignment.
fn stored(weight: &Tensor, dtype: DType, skip: usize) -> Stored {
    let values = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut bytes = vec![0u8; skip];
    for v in values {
        match dtype {
            DType::F32 => bytes.extend(v.to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
            // Any code but NaN is a valid value: hash the float's bits into one.
            DType::F8E4M3 => bytes.push(match (v.to_bits() >> 13) as u8 {
                code if code & 0x7f == 0x7f => 0,
                code => code & 0xbf, // below 2, so that sums stay moderate
            }),
            other => panic!("{other:?}"),
        }
    }
    let bytes = Bytes::new(bytes);
    let end = bytes.as_slice().len();
    Stored::new("test.weight", dtype, weight.dims().to_vec(), bytes.slice(skip..end)).unwrap()
}

fn layer(inputs: usize, outputs: usize, dtype: DType, skip: usize) -> Linear {
    let weight = random(&[outputs, inputs], 5);
    Linear::new(stored(&weight, dtype, skip), Some(random(&[outputs], 6)))
}

#[test]
fn equals_the_reference_at_every_shape_and_stored_dtype() {
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F8E4M3] {
        for (rows, inputs, outputs) in
            [(1, 256, 96), (3, 37, 29), (7, 1, 1), (8, 64, 3), (49, 300, 77), (101, 515, 130), (1025, 33, 65)]
        {
            let layer = layer(inputs, outputs, dtype, 0);
            let x = random(&[rows, inputs], 7);
            for activation in [Activation::Identity, Activation::GeluTanh, Activation::Silu] {
                assert_close(
                    &layer.forward_act(&x, activation).unwrap(),
                    &layer.reference(&x, activation).unwrap(),
                    3e-6,
                );
            }
        }
    }
}

/// Few rows, and so many that the weight is packed in several groups; and a weight that is not aligned for its type.
#[test]
fn equals_the_reference_on_both_sides_of_many_rows() {
    for (dtype, skip) in [(DType::F32, 0), (DType::F32, 1), (DType::F8E4M3, 3)] {
        let layer = layer(1100, 1300, dtype, skip);
        for rows in [20, 255, 256, 270] {
            let x = random(&[rows, 1100], 8);
            assert_close(
                &layer.forward(&x).unwrap(),
                &layer.reference(&x, Activation::Identity).unwrap(),
                3e-6,
            );
        }
    }
}

#[test]
fn takes_any_rank_strides_and_dtype() {
    let layer = layer(40, 24, DType::BF16, 0);
    let x = random(&[2, 3, 5, 40], 9);
    let flat = layer.reference(&x.reshape((30, 40)).unwrap(), Activation::GeluErf).unwrap();
    let want = flat.reshape((2, 3, 5, 24)).unwrap();
    assert_close(&layer.forward_act(&x, Activation::GeluErf).unwrap(), &want, 3e-6);
    assert_close(&layer.forward_act(&strided(&x), Activation::GeluErf).unwrap(), &want, 3e-6);
    let half = x.to_dtype(DType::BF16).unwrap();
    assert_close(
        &layer.forward_act(&half, Activation::GeluErf).unwrap(),
        &want.to_dtype(DType::BF16).unwrap(),
        1e-2,
    );
    let one = random(&[40], 10);
    let want = layer.reference(&one.reshape((1, 40)).unwrap(), Activation::Identity).unwrap();
    assert_close(&layer.forward(&one).unwrap(), &want.reshape(24).unwrap(), 3e-6);
    let none = Tensor::zeros((0, 40), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(layer.forward(&none).unwrap().dims(), [0, 24]);
}

#[test]
fn changes_equal_the_merged_weight() {
    let (inputs, outputs, rank) = (70, 41, 5);
    let deltas = || {
        vec![
            Delta::LowRank {
                down: stored(&random(&[rank, inputs], 12), DType::BF16, 0),
                up: stored(&random(&[outputs, rank], 13), DType::F32, 2),
                scale: 0.3,
            },
            Delta::Full { diff: stored(&random(&[outputs, inputs], 14), DType::F32, 0), scale: -0.7 },
        ]
    };
    for dtype in [DType::F32, DType::F8E4M3] {
        let plain = layer(inputs, outputs, dtype, 0);
        let changed = plain.clone().with_deltas(deltas()).unwrap();
        for rows in [1, 7, 8, 50] {
            let x = random(&[rows, inputs], 15);
            for activation in [Activation::Identity, Activation::GeluTanh] {
                let merged = changed.reference(&x, activation).unwrap();
                assert_close(&changed.forward_act(&x, activation).unwrap(), &merged, 3e-6);
                assert_close(&changed.branch_by_branch(&x, activation).unwrap(), &merged, 3e-6);
            }
        }
        let x = random(&[20, inputs], 16);
        assert_thread_count_is_irrelevant(|| changed.forward_act(&x, Activation::Silu).unwrap());
    }
    let wide = Delta::Full { diff: stored(&random(&[outputs, inputs + 1], 14), DType::F32, 0), scale: 1.0 };
    assert!(layer(inputs, outputs, DType::F32, 0).with_deltas(vec![wide]).is_err());
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let layer = layer(300, 200, DType::BF16, 0);
    for rows in [1, 100] {
        let x = random(&[rows, 300], 11);
        assert_thread_count_is_irrelevant(|| layer.forward_act(&x, Activation::GeluTanh).unwrap());
    }
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let good = layer(8, 4, DType::F32, 0);
    let error = good.forward(&random(&[2, 9], 1)).unwrap_err().to_string();
    assert!(error.contains("test.weight") && error.contains("[..., 8]"), "{error}");
    let bad = Linear::new(good.weight.clone(), Some(random(&[5], 1)));
    assert!(bad.forward(&random(&[2, 8], 1)).is_err());
}

/// Rows that come in FP8 are multiplied as what they stand for, and rows for the next layer are rounded once.
#[test]
fn takes_and_writes_rows_in_fp8() {
    let layer = layer(64, 48, DType::F8E4M3, 0);
    assert_eq!(
        layer.row_format(&Device::Cpu, DType::F32),
        RowFormat::Float(DType::F32),
        "the CPU's is exact"
    );
    let rows = quantise(&random(&[5, 64], 2)).unwrap();
    let x = rows.values().unwrap();
    let want = layer.forward_act(&x, Activation::GeluTanh).unwrap();
    let fp8 = Rows::from(rows);
    let act = |format| layer.forward_rows_act(&fp8, Activation::GeluTanh, format).unwrap();
    assert_close(&act(RowFormat::Float(DType::F32)).into_values().unwrap(), &want, 0.0);
    let Rows::Quantised(found) = act(RowFormat::Quantised(DType::F32)) else { panic!("floats") };
    assert_close(found.codes(), quantise(&want).unwrap().codes(), 0.0);
    assert_close(&layer.forward_rows(&fp8).unwrap(), &layer.forward(&x).unwrap(), 0.0);
    assert_close(&layer.forward_rows(&Rows::Float(x.clone())).unwrap(), &layer.forward(&x).unwrap(), 0.0);
    let short = Rows::from(quantise(&random(&[5, 63], 2)).unwrap());
    assert!(layer.forward_rows(&short).is_err());
}

#[test]
fn parts_make_the_whole_and_have_to() {
    let layer = layer(70, 40, DType::F8E4M3, 0);
    let x = random(&[50, 70], 7);
    let whole = layer.forward(&x).unwrap();
    let parts = |rows: usize, starts: &[(usize, usize)]| {
        let parts = starts.iter().map(|(start, count)| Ok(Rows::Float(x.narrow(0, *start, *count)?)));
        layer.forward_parts(&Device::Cpu, (rows, DType::F32), parts)
    };
    let joined = parts(50, &[(0, 16), (16, 32), (48, 2)]).unwrap();
    assert_close(&joined.finish().unwrap(), &whole, 1e-6);
    let error = parts(50, &[(0, 16), (16, 32)]).unwrap_err().to_string();
    assert!(error.contains("parts of a product") && error.contains("48") && error.contains("50"), "{error}");
}
