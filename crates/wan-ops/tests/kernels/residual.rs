use candle_core::{DType, Tensor};
use wan_cuda::ops::{self, Addition, Affine as Places, Normed};
use wan_cuda::{DevPtr, Float};
use wan_ops::{Affine, RowFormat, Sums, gated_residual, layer_norm_rows, residual_layer_norm};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::quantised::Quantised;
use crate::testing::{assert_close, random};

const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 7], [5, 64], [4, 257], [3, 1536], [2, 5120]];
const EPS: f32 = 1e-6;

/// Formats of stream, addition and normalised rows; tolerances of one rounding to the stream's and to the last.
fn formats() -> Vec<[(Float, DType, f32); 3]> {
    let [f32, bf16, f16] = FLOATS;
    vec![
        [f32, f32, f32],
        [f32, f32, bf16],
        [f32, f32, f16],
        [f32, bf16, f32],
        [f32, bf16, bf16],
        [f32, f16, f32],
        [f32, f16, f16],
        [bf16, bf16, bf16],
        [f16, f16, f16],
    ]
}

struct Inputs {
    x: Tensor,
    y: Tensor,
    row_scale: Tensor,
    bias: Tensor,
    gate: Tensor,
    a: Tensor,
    b: Tensor,
}

impl Inputs {
    /// Off centre: a variance as difference of squares would lose digits.
    fn new(shape: [usize; 2], x: DType, y: DType) -> Self {
        let [rows, dim] = shape;
        Self {
            x: (random(&[rows, dim], 1) + 5.0).unwrap().to_dtype(x).unwrap(),
            y: random(&[rows, dim], 2).to_dtype(y).unwrap(),
            row_scale: random(&[rows], 6),
            bias: random(&[dim], 7),
            gate: random(&[dim], 3),
            a: random(&[dim], 4),
            b: random(&[dim], 5),
        }
    }

    /// `y` as values, or as bare sums of a product.
    fn y(&self, bare: bool) -> Sums {
        if !bare {
            return (&self.y).into();
        }
        Sums::new(self.y.clone(), Some(self.row_scale.clone()), Some(self.bias.clone())).unwrap()
    }
}

/// `y`, and its scales and bias, as a kernel reads them.
struct Addend {
    float: Float,
    y: Buffer,
    row_scale: Buffer,
    bias: Buffer,
}

impl Addend {
    fn of(t: &Inputs, float: Float) -> Self {
        let [y, row_scale, bias] = [&t.y, &t.row_scale, &t.bias].map(Buffer::of);
        Self { float, y, row_scale, bias }
    }

    fn sums(&self, bare: bool) -> ops::Sums {
        match bare {
            false => ops::Sums::plain(self.float, self.y.ptr()),
            true => ops::Sums {
                float: self.float,
                x: self.y.ptr(),
                row_scale: self.row_scale.ptr(),
                bias: self.bias.ptr(),
            },
        }
    }

    fn buffers(&self) -> [&Buffer; 3] {
        [&self.y, &self.row_scale, &self.bias]
    }
}

/// All that a kernel may touch.
fn with<'a>(addend: &'a Addend, others: &[&'a Buffer]) -> Vec<&'a Buffer> {
    addend.buffers().into_iter().chain(others.iter().copied()).collect()
}

#[test]
fn sum_and_norm_equal_the_cpu() {
    for [(xf, xd, x_tolerance), (yf, yd, _), (nf, nd, n_tolerance)] in formats() {
        for shape in SHAPES {
            let [rows, dim] = shape;
            let t = Inputs::new(shape, xd, yd);
            let [x, gate, a, b] = [&t.x, &t.gate, &t.a, &t.b].map(Buffer::of);
            let addend = Addend::of(&t, yf);
            let (sum, normed) = (Buffer::poisoned(xd, rows * dim), Buffer::poisoned(nd, rows * dim));
            let affines = [
                (Places::None, Affine::None),
                (
                    Places::Weights { weight: a.ptr(), bias: b.ptr() },
                    Affine::Weights { weight: &t.a, bias: &t.b },
                ),
                (
                    Places::Modulation { shift: a.ptr(), scale: b.ptr() },
                    Affine::Modulation { shift: &t.a, scale: &t.b },
                ),
            ];
            let kinds = [(true, false), (false, true), (true, true)];
            for ((places, affine), (gated, bare)) in affines.into_iter().zip(kinds) {
                let gate_ptr = if gated { gate.ptr() } else { DevPtr::NULL };
                let addition = Addition { y: addend.sums(bare), gate: gate_ptr, sum: sum.ptr() };
                let launch = ops::residual_layer_norm(
                    (xf, x.ptr()),
                    Some(addition),
                    Normed::Float(nf, normed.ptr()),
                    places,
                    shape,
                    EPS,
                );
                run(&launch.unwrap(), &with(&addend, &[&x, &gate, &a, &b, &sum, &normed]));
                let gate = gated.then_some(&t.gate);
                let format = RowFormat::Float(nd);
                let (want_sum, want) =
                    residual_layer_norm(&t.x, t.y(bare), gate, EPS, affine, format).unwrap();
                assert_close(&sum.tensor(xd, &shape), &want_sum, x_tolerance);
                assert_close(&normed.tensor(nd, &shape), &want.into_values().unwrap(), n_tolerance.max(1e-5));
            }
        }
    }
}

#[test]
fn quantised_rows_equal_the_cpu() {
    let [f32, bf16, f16] = FLOATS;
    for ((xf, xd, tolerance), (yf, yd, _)) in [(f32, f32), (f32, bf16), (f32, f16), (bf16, bf16)] {
        for shape in SHAPES {
            let [rows, dim] = shape;
            let t = Inputs::new(shape, xd, yd);
            let [x, a, b] = [&t.x, &t.a, &t.b].map(Buffer::of);
            let addend = Addend::of(&t, yf);
            let (sum, out) = (Buffer::poisoned(xd, rows * dim), Quantised::poisoned(rows, dim));
            let places = Places::Modulation { shift: a.ptr(), scale: b.ptr() };
            let [codes, scale] = out.places();
            let quantised = Normed::Quantised { codes, scale };
            let addition = Addition { y: addend.sums(true), gate: DevPtr::NULL, sum: sum.ptr() };
            let affine = Affine::Modulation { shift: &t.a, scale: &t.b };
            let format = RowFormat::Quantised(DType::F32);

            let stream = (xf, x.ptr());
            let launch = ops::residual_layer_norm(stream, Some(addition), quantised, places, shape, EPS);
            run(&launch.unwrap(), &with(&addend, &[&x, &a, &b, &sum, &out.codes, &out.scale]));
            let (want_sum, want) = residual_layer_norm(&t.x, t.y(true), None, EPS, affine, format).unwrap();
            assert_close(&sum.tensor(xd, &shape), &want_sum, tolerance);
            out.assert_equals(want, 1e-5);
            let floats = RowFormat::Float(DType::F32);
            let (_, exact) = residual_layer_norm(&t.x, t.y(true), None, EPS, affine, floats).unwrap();
            out.assert_stands_for(&exact.into_values().unwrap(), 1e-5);

            // Nothing added, and an output that was written before.
            let launch = ops::residual_layer_norm(stream, None, quantised, places, shape, EPS).unwrap();
            run(&launch, &[&x, &a, &b, &out.codes, &out.scale]);
            out.assert_equals(layer_norm_rows(&t.x, EPS, affine, format).unwrap(), 1e-5);
        }
    }
}

#[test]
fn sums_alone_equal_the_cpu() {
    for [(xf, xd, tolerance), (yf, yd, _), _] in formats() {
        for shape in SHAPES {
            let t = Inputs::new(shape, xd, yd);
            let [x, gate] = [&t.x, &t.gate].map(Buffer::of);
            let addend = Addend::of(&t, yf);
            for (gated, bare) in [(true, false), (false, false), (true, true), (false, true)] {
                let sum = Buffer::poisoned(xd, shape[0] * shape[1]);
                let gate_ptr = if gated { gate.ptr() } else { DevPtr::NULL };
                let addition = Addition { y: addend.sums(bare), gate: gate_ptr, sum: sum.ptr() };
                let launch = ops::gated_residual((xf, x.ptr()), addition, shape).unwrap();
                run(&launch, &with(&addend, &[&x, &gate, &sum]));
                let want = gated_residual(&t.x, t.y(bare), gated.then_some(&t.gate)).unwrap();
                assert_close(&sum.tensor(xd, &shape), &want, tolerance);
            }
        }
    }
}

#[test]
fn formats_without_a_kernel_are_refused() {
    let null = DevPtr::NULL;
    let addition = Addition { y: ops::Sums::plain(Float::F32, null), gate: null, sum: null };
    assert!(ops::gated_residual((Float::Bf16, null), addition, [1, 1]).is_none());
    let normed = Normed::Float(Float::F16, null);
    assert!(ops::residual_layer_norm((Float::Bf16, null), None, normed, Places::None, [1, 1], EPS).is_none());
}
