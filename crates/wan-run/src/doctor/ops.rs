//! A short self-test: some operations on the device against plain tensors on the CPU.

use candle_core::{DType, Device, Tensor};
use wan_core::device::{compute_dtype, to_host};
use wan_core::{Result, Stored};
use wan_ops::{
    Activation, Affine, Linear, activate, activate_reference, attention, attention_reference,
    channel_rms_norm, channel_rms_norm_reference, layer_norm, layer_norm_reference, rms_norm,
    rms_norm_reference,
};
use wan_sampler::TorchRng;

use super::report::Check;

const EPS: f32 = 1e-6;

/// What an operation gave on the device, and what it is.
type Pair = (Tensor, Tensor);

/// Runs the operations on `device`.
pub(super) fn check(device: &Device) -> Check {
    const NAME: &str = "arithmetic";
    let dtype = compute_dtype(device);
    // Of the largest value: sums in another order; results rounded to 8 bits of mantissa.
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
    let advice = "update the driver; if it stays so, report a bug with this text";
    let mut worst: f32 = 0.0;
    for (name, run) in OPERATIONS {
        match run(device, dtype).and_then(|pair| deviation(&pair)) {
            Err(error) => return Check::fail(NAME, format!("{name}: {error}"), advice),
            Ok(deviation) if deviation <= tolerance => worst = worst.max(deviation),
            // NaN as well.
            Ok(deviation) => {
                let found = format!("{name} differs by {deviation:.1e}, expected at most {tolerance:.0e}");
                return Check::fail(NAME, found, advice);
            }
        }
    }
    let (count, dtype) = (OPERATIONS.len(), dtype.as_str());
    Check::ok(NAME, format!("{count} operations in {dtype} differ from plain ones by {worst:.0e} at most"))
}

type Operation = fn(&Device, DType) -> Result<Pair>;

const OPERATIONS: [(&str, Operation); 6] = [
    ("activation", |device, dtype| {
        let x = Input::new(&[64, 96], 1, dtype)?;
        Ok((
            activate(&x.on(device)?, Activation::GeluTanh)?,
            activate_reference(&x.plain, Activation::GeluTanh)?,
        ))
    }),
    ("layer norm", |device, dtype| {
        let x = Input::new(&[48, 128], 2, dtype)?;
        Ok((
            layer_norm(&x.on(device)?, EPS, Affine::None)?,
            layer_norm_reference(&x.plain, EPS, Affine::None)?,
        ))
    }),
    ("rms norm", |device, dtype| {
        let (x, weight) = (Input::new(&[48, 128], 3, dtype)?, random(&[128], 4)?);
        let found = rms_norm(&x.on(device)?, &weight.to_device(device)?, EPS)?;
        Ok((found, rms_norm_reference(&x.plain, &weight, EPS)?))
    }),
    ("channel norm", |device, dtype| {
        let (x, gamma) = (Input::new(&[2, 6, 6, 32], 5, dtype)?, random(&[32], 6)?);
        let found = channel_rms_norm(&x.on(device)?, &gamma.to_device(device)?, Activation::Silu)?;
        Ok((found, channel_rms_norm_reference(&x.plain, &gamma, Activation::Silu)?))
    }),
    ("linear", |device, dtype| {
        let (x, weight) = (Input::new(&[70, 128], 7, dtype)?, random(&[96, 128], 8)?);
        // Stored as the 14B models are, in a dtype that a GPU multiplies as it is.
        let stored = Stored::from_tensor("weight", &weight.to_dtype(DType::BF16)?)?;
        let plain = weight.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
        Ok((Linear::new(stored, None).forward(&x.on(device)?)?, x.plain.matmul(&plain.t()?)?))
    }),
    ("attention", |device, dtype| {
        let [q, k, v] =
            [(9, 80), (10, 100), (11, 100)].map(|(seed, l)| Input::new(&[l, 2, 128], seed, dtype));
        let (q, k, v) = (q?, k?, v?);
        let scale = 128f32.sqrt().recip();
        let found = attention(&q.on(device)?, &k.on(device)?, &v.on(device)?, scale, None)?;
        Ok((found, attention_reference(&q.plain, &k.plain, &v.plain, scale, None)?))
    }),
];

/// An input in the device's dtype, and the same values widened for the plain operation.
struct Input {
    narrow: Tensor,
    plain: Tensor,
}

impl Input {
    fn new(shape: &[usize], seed: u64, dtype: DType) -> Result<Self> {
        let narrow = random(shape, seed)?.to_dtype(dtype)?;
        let plain = narrow.to_dtype(DType::F32)?;
        Ok(Self { narrow, plain })
    }

    fn on(&self, device: &Device) -> Result<Tensor> {
        Ok(self.narrow.to_device(device)?)
    }
}

fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let values = TorchRng::seed(seed).randn(shape.iter().product());
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// Largest difference, as a part of the largest value.
fn deviation((found, expected): &Pair) -> Result<f32> {
    let flat =
        |t: &Tensor| -> Result<Vec<f32>> { Ok(to_host(t)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
    let (found, expected) = (flat(found)?, flat(expected)?);
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    // `max` ignores NaN: let it count as infinite instead.
    let difference = |(f, e): (&f32, &f32)| if (f - e).is_nan() { f32::INFINITY } else { (f - e).abs() };
    Ok(found.iter().zip(&expected).map(difference).fold(0f32, f32::max) / largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen() {
        let of = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        assert_eq!(deviation(&(of(&[1.0, 4.0]), of(&[1.0, 4.0]))).unwrap(), 0.0);
        assert_eq!(deviation(&(of(&[2.0, 4.0]), of(&[1.0, 4.0]))).unwrap(), 0.25);
        assert_eq!(deviation(&(of(&[f32::NAN, 4.0]), of(&[1.0, 4.0]))).unwrap(), f32::INFINITY);
    }
}
