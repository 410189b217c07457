use candle_core::DType;

use super::*;
use crate::testing::{assert_close, random, strided};

fn expected(sums: &Tensor, row_scale: &Tensor, bias: &Tensor) -> Tensor {
    let scaled = sums.to_dtype(DType::F32).unwrap().broadcast_mul(&row_scale.unsqueeze(1).unwrap()).unwrap();
    scaled.broadcast_add(bias).unwrap().to_dtype(sums.dtype()).unwrap()
}

#[test]
fn finishing_applies_scales_then_bias() {
    for dtype in [DType::F32, DType::BF16] {
        let sums = random(&[7, 30], 1).to_dtype(dtype).unwrap();
        let (row_scale, bias) = (random(&[7], 2), random(&[30], 3));
        let want = expected(&sums, &row_scale, &bias);
        let both = Sums::new(sums.clone(), Some(row_scale.clone()), Some(bias.clone())).unwrap();
        assert_close(&both.finish().unwrap(), &want, 1e-6);
        assert_close(&both.narrow(2, 4).unwrap().finish().unwrap(), &want.narrow(0, 2, 4).unwrap(), 1e-6);
        let gathered = Sums::new(strided(&sums), Some(row_scale.clone()), Some(bias.clone())).unwrap();
        assert_close(&gathered.finish().unwrap(), &want, 1e-6);

        let (ones, zeros) = (row_scale.ones_like().unwrap(), bias.zeros_like().unwrap());
        let scaled = Sums::new(sums.clone(), Some(row_scale.clone()), None).unwrap();
        assert_close(&scaled.finish().unwrap(), &expected(&sums, &row_scale, &zeros), 1e-6);
        let biased = Sums::new(sums.clone(), None, Some(bias.clone())).unwrap();
        assert_close(&biased.finish().unwrap(), &expected(&sums, &ones, &bias), 1e-6);
    }
}

#[test]
fn finished_values_are_kept() {
    let values = random(&[3, 5], 1);
    assert_eq!(Sums::from(&values).finish().unwrap().id(), values.id());
}

#[test]
fn parts_of_other_lengths_are_refused_by_name() {
    let sums = || random(&[3, 5], 1);
    let error = Sums::new(sums(), Some(random(&[5], 1)), None).unwrap_err().to_string();
    assert!(error.contains("row scales of sums"), "{error}");
    let error = Sums::new(sums(), None, Some(random(&[3], 1))).unwrap_err().to_string();
    assert!(error.contains("bias of sums"), "{error}");
}
