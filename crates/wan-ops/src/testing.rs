//! What the ops' tests share: deterministic inputs and the comparison of a half with its reference.

use candle_core::{DType, Device, Tensor};

/// Values of a fixed pseudo-random sequence, about normal with deviation 1; another `seed` gives others.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut uniform = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 24) as f32
    };
    // Sum of four uniforms: mean 2, variance 1/3.
    let mut normal = || (uniform() + uniform() + uniform() + uniform() - 2.0) * 3f32.sqrt();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The same values at other strides: the last two axes lie swapped in memory, with a gap.
pub(crate) fn strided(t: &Tensor) -> Tensor {
    let rank = t.rank();
    let last = t.dim(rank - 1).unwrap();
    let swapped = t.transpose(rank - 2, rank - 1).unwrap().contiguous().unwrap();
    let gapped = Tensor::cat(&[&swapped, &swapped], rank - 2).unwrap();
    let view = gapped.narrow(rank - 2, 0, last).unwrap().transpose(rank - 2, rank - 1).unwrap();
    assert_eq!(view.dims(), t.dims());
    view
}

/// Asserts that `found` is within `tolerance` of `expected`, relative to its largest value, and of its dtype.
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    assert_eq!(found.dtype(), expected.dtype());
    let flat = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (flat(found), flat(expected));
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert!((f - e).abs() <= tolerance * largest, "value {i}: {f} for {e}, of values up to {largest}");
    }
}

/// Asserts that `compute` gives the same bytes in pools of one, two and three threads.
#[track_caller]
pub(crate) fn assert_thread_count_is_irrelevant(compute: impl Fn() -> Tensor + Sync) {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let values = pool.install(|| compute().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert!(one == bits(2) && one == bits(3), "results depend on the number of threads");
}
