use super::*;
use crate::testing::{assert_close, assert_thread_count_is_irrelevant, random, strided};

/// Half a step of e4m3: 1/16 of a value, or 2^-10 of the row's scale below the normal numbers.
#[test]
fn codes_are_the_nearest() {
    for (l, dim) in [(1, 1), (3, 17), (40, 1536)] {
        for dtype in [DType::F32, DType::BF16] {
            let x = (random(&[l, dim], 1) * 30.0).unwrap().to_dtype(dtype).unwrap();
            let rows = quantise(&strided(&x)).unwrap();
            assert_eq!((rows.dtype(), rows.codes().dims()), (dtype, x.dims()));
            let wide = QuantisedRows { dtype: DType::F32, ..rows.clone() }.values().unwrap();
            let table = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            let scales = rows.scales().to_vec1::<f32>().unwrap();
            for ((found, want), scale) in table(&wide).iter().zip(table(&x)).zip(scales) {
                let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert!((scale * 448.0 - largest).abs() <= largest * 1e-6, "{scale} for {largest}");
                for (found, want) in found.iter().zip(want) {
                    let step = (want.abs() / 16.0).max(scale / 1024.0) * 1.00001;
                    assert!((found - want).abs() <= step, "{found} for {want}");
                }
            }
        }
    }
}

#[test]
fn zeros_have_scale_one_and_nan_stays() {
    let x = Tensor::new(&[[0f32, 0.0], [f32::NAN, 1.0], [-3.0, 1.5], [1e-40, 0.0]], &Device::Cpu).unwrap();
    let rows = quantise(&x).unwrap();
    let values = rows.values().unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(values[0], [0.0, 0.0]);
    assert!(values[1][0].is_nan());
    assert!((values[2][0] + 3.0).abs() < 1e-6 && (values[2][1] - 1.5).abs() < 1e-6, "{values:?}");
    // Too little for its scale to have an inverse.
    assert_eq!(values[3], [0.0, 0.0]);
    let scales = rows.scales().to_vec1::<f32>().unwrap();
    assert_eq!((scales[0], scales[3]), (1.0, 1.0));
}

#[test]
fn parts_of_rows_are_rows() {
    let x = random(&[9, 40], 3);
    let whole = quantise(&x).unwrap();
    let part = Rows::from(whole).narrow(4, 3).unwrap();
    assert_eq!(part.count().unwrap(), 3);
    let want = quantise(&x.narrow(0, 4, 3).unwrap()).unwrap().values().unwrap();
    assert_close(&part.into_values().unwrap(), &want, 0.0);
}

#[test]
fn a_format_is_shared_only_where_all_take_it() {
    let (fp8, float) = (RowFormat::Quantised(DType::BF16), RowFormat::Float(DType::BF16));
    assert_eq!((fp8.and(fp8), fp8.and(float), float.and(fp8)), (fp8, float, float));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let rows = quantise(&random(&[3, 4], 1)).unwrap();
    let (codes, scales) = (rows.codes().clone(), rows.scales().clone());
    assert!(QuantisedRows::new(codes.clone(), scales.clone(), DType::F32).is_ok());
    let short = scales.narrow(0, 0, 2).unwrap();
    assert!(QuantisedRows::new(codes.clone(), short, DType::F32).unwrap_err().to_string().contains("[3]"));
    let floats = codes.to_dtype(DType::F32).unwrap();
    assert!(QuantisedRows::new(floats, scales, DType::F32).unwrap_err().to_string().contains("codes"));
}

#[test]
fn results_do_not_depend_on_the_thread_count() {
    let x = random(&[70, 640], 9);
    assert_thread_count_is_irrelevant(|| quantise(&x).unwrap().values().unwrap());
}
