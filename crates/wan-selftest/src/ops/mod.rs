//! Every op on the device: against f64, against what an eager framework loses in the same dtype, and against the op's
//! CPU half.

mod attention;
mod attention_of_products;
mod convolution;
mod linear;
mod rows;

use candle_core::{DType, Device, Tensor};
use wan_core::device::to_host;
use wan_pipeline::Result;

use crate::compare::difference;
use crate::reference::{Format, Matrix};
use crate::{Check, Runner};

/// Name of the group.
pub(crate) const GROUP: &str = "ops";

/// Rows of a large output that are compared.
const SAMPLED: usize = 12;

/// How large the inputs are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Whether true dimensions are tried as well as small ones.
    pub full: bool,
    /// Tokens of a video at true dimensions.
    pub tokens: usize,
    /// Seed of all inputs.
    pub seed: u64,
}

/// Runs all rows of the group.
pub(crate) fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    linear::run(runner, device, scale);
    attention::run(runner, device, scale);
    attention_of_products::run(runner, device, scale);
    rows::run(runner, device, scale);
    convolution::run(runner, device, scale);
}

/// What the error may be.
#[derive(Debug, Clone, Copy)]
enum Gate {
    /// Twice that of eager arithmetic in the same dtype.
    TwiceEager,
    /// A relative L2 norm, for formats that eager arithmetic does not have.
    RelativeL2(f64),
}

/// One op on one set of inputs.
struct Case<'a> {
    /// Of the inputs.
    dtype: DType,
    /// Rows of the output that are compared.
    rows: Vec<usize>,
    /// The op; its output as `[rows, columns]`.
    run: &'a dyn Fn(&Device) -> Result<Tensor>,
    /// Those rows of the reference.
    reference: &'a dyn Fn(Format, &[usize]) -> Result<Matrix>,
    /// What the error may be.
    gate: Gate,
    /// Whether the op's CPU half is quick enough at this size.
    against_cpu: bool,
}

impl Case<'_> {
    fn check(&self, device: &Device) -> Result<Vec<Check>> {
        poison(device)?;
        let output = (self.run)(device)?;
        let found = Matrix::rows_of(&output, &self.rows)?;
        let exact = (self.reference)(Format::Exact, &self.rows)?;
        let eager = (self.reference)(Format::Eager(self.dtype), &self.rows)?;
        let (ours, theirs) = (difference(&found, &exact), difference(&eager, &exact));
        let limit = match self.gate {
            Gate::TwiceEager => 2.0 * theirs.relative_l2 + floor(self.dtype),
            Gate::RelativeL2(limit) => limit,
        };
        let mut checks = vec![
            Check::at_most("error", ours.relative_l2, limit),
            Check::info("eager", theirs.relative_l2),
            Check::at_most("not finite", not_finite(&output)?, 0.0),
        ];
        if self.against_cpu && !device.is_cpu() {
            let cpu = Matrix::rows_of(&(self.run)(&Device::Cpu)?, &self.rows)?;
            // The CPU half is within the limit of f64 as well.
            checks.push(Check::at_most("to cpu", difference(&found, &cpu).relative_l2, 2.0 * limit));
        }
        Ok(checks)
    }
}

/// What is allowed beside twice the eager error, which can be 0 for values that round to nothing: functions are
/// approximated, sums have another order.
fn floor(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 5e-4,
        DType::F16 => 6e-5,
        _ => 1e-6,
    }
}

/// Number of values that are not finite.
fn not_finite(output: &Tensor) -> Result<f64> {
    let values = output.to_dtype(DType::F32)?;
    // `x - x` is 0 for numbers and NaN for NaN and infinities, and NaN equals nothing.
    let finite = values.sub(&values)?.eq(0f64)?.to_dtype(DType::F32)?;
    let rows = finite.flatten_all()?;
    let whole = rows.elem_count();
    Ok(whole as f64 - count(&rows)?)
}

/// Sum of zeros and ones, in parts that f32 counts exactly.
fn count(ones: &Tensor) -> Result<f64> {
    const PART: usize = 1 << 24;
    let mut sum = 0.0;
    for start in (0..ones.elem_count()).step_by(PART) {
        let part = ones.narrow(0, start, PART.min(ones.elem_count() - start))?;
        sum += f64::from(to_host(&part.sum_all()?)?.to_scalar::<f32>()?);
    }
    Ok(sum)
}

/// Leaves NaN in the memory that the allocator hands out next, so that what a kernel does not write shows.
fn poison(device: &Device) -> Result<()> {
    if device.is_cuda() {
        for size in [1 << 10, 1 << 14, 1 << 18, 1 << 22] {
            Tensor::full(f32::NAN, size, device)?;
        }
    }
    Ok(())
}

/// Some of `count` rows: the first, the last, and others between them; all of few.
fn sampled(count: usize) -> Vec<usize> {
    if count <= 4 * SAMPLED {
        return (0..count).collect();
    }
    (0..SAMPLED).map(|i| i * (count - 1) / (SAMPLED - 1)).collect()
}

/// The name of a dtype in a row's name.
fn short(dtype: DType) -> &'static str {
    match dtype {
        DType::F8E4M3 => "e4m3",
        other => other.as_str(),
    }
}

/// Dtypes of activations.
const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_finite_are_counted() {
        let x = Tensor::new(&[1f32, f32::NAN, f32::INFINITY, -2.0], &Device::Cpu).unwrap();
        assert_eq!(not_finite(&x).unwrap(), 2.0);
        assert_eq!(not_finite(&x.to_dtype(DType::BF16).unwrap()).unwrap(), 2.0);
    }

    #[test]
    fn samples_reach_both_ends() {
        assert_eq!(sampled(3), [0, 1, 2]);
        let rows = sampled(32760);
        assert_eq!((rows[0], rows[SAMPLED - 1], rows.len()), (0, 32759, SAMPLED));
    }

    /// A wrong result is found, whatever its dtype.
    #[test]
    fn a_wrong_op_fails() {
        let x = crate::synthesis::normal(DType::BF16, &[4, 8], 1.0, 1).unwrap();
        let check = |factor: f64| {
            let case = Case {
                dtype: DType::BF16,
                rows: sampled(4),
                run: &|_| Ok((&x * factor)?),
                reference: &|_, rows| Ok(Matrix::rows_of(&x, rows)?),
                gate: Gate::TwiceEager,
                against_cpu: true,
            };
            case.check(&Device::Cpu).unwrap().iter().all(Check::passes)
        };
        assert!(check(1.0) && !check(1.01) && !check(f64::NAN));
    }
}
