//! Matrix products at the shapes of the DiT's blocks.

use candle_core::DType;
use wan_core::device::compute_dtype;
use wan_dit::DitConfig;
use wan_ops::{Linear, Precision};
use wan_pipeline::Result;

use super::{Bench, latent};
use crate::synthesis::{normal, stored};
use crate::{Check, Runner};

const GROUP: &str = "products";

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Weight in the activations' format.
    Plain,
    /// Weight in e4m3, widened at each use.
    Widened,
    /// Weight in e4m3, activations rounded to it at each use.
    Fp8,
}

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    let Ok(config) = bench.files.dit.weights().and_then(|w| DitConfig::read(&w, None)) else { return };
    let (d, ffn) = (config.dim, config.ffn_dim);
    for video in &bench.options.videos {
        let rows = latent(*video).tokens();
        for [outputs, inputs] in [[3 * d, d], [d, d], [ffn, d], [d, ffn]] {
            for (way, name) in
                [(Way::Plain, "gemm bf16"), (Way::Widened, "linear bf16"), (Way::Fp8, "linear fp8")]
            {
                runner.row(GROUP, format!("{name} {rows}x{outputs}x{inputs}"), || {
                    linear(bench, way, [rows, outputs, inputs])
                });
            }
            #[cfg(feature = "cuda")]
            if let candle_core::Device::Cuda(device) = bench.device() {
                runner.row(GROUP, format!("gemm fp8 {rows}x{outputs}x{inputs}"), || {
                    gemm_fp8(bench, device, [rows, outputs, inputs])
                });
            }
        }
    }
}

fn linear(bench: &Bench<'_>, way: Way, [rows, outputs, inputs]: [usize; 3]) -> Result<Vec<Check>> {
    let (device, seed) = (bench.device(), bench.options.seed);
    let dtype = compute_dtype(device);
    let weight = if way == Way::Plain { dtype } else { DType::F8E4M3 };
    let weight = stored("weight", weight, &[outputs, inputs], 0.02, seed)?;
    let precision = if way == Way::Fp8 { Precision::Fp8 } else { Precision::Bf16 };
    let layer = Linear::new(weight, None).with_precision(precision);
    let x = normal(dtype, &[rows, inputs], 1.0, seed + 1)?.to_device(device)?;
    let times = bench.time(|| {
        layer.forward(&x)?;
        Ok(())
    })?;
    let flops = 2.0 * rows as f64 * outputs as f64 * inputs as f64;
    let rate = bench.rates.map(|r| if way == Way::Fp8 { r.fp8 } else { r.bf16 });
    Ok(Bench::figures(times, flops, rate.map(|rate| flops / rate)))
}

/// The product alone, of codes that are quantised already.
#[cfg(feature = "cuda")]
fn gemm_fp8(
    bench: &Bench<'_>,
    device: &candle_core::CudaDevice,
    [rows, outputs, inputs]: [usize; 3],
) -> Result<Vec<Check>> {
    use wan_cuda::gpu::{DeviceSlab, Epilogue, Gemm, GemmPlaces, Gpu, Operand};
    use wan_cuda::{DevPtr, Float};

    let engine = candle_core::Error::from;
    let gpu = Gpu::of(device).map_err(engine)?;
    if !Gemm::fits_fp8(gpu.capability(), outputs, inputs) {
        let found = format!("{:?} and {outputs}x{inputs}", gpu.capability());
        return Err(wan_core::Error::invalid("fp8 product", found, "8.9 or later, multiples of 16").into());
    }
    let codes = |name, shape: &[usize], seed| -> Result<_> {
        let codes = stored(name, DType::F8E4M3, shape, 1.0, seed)?;
        let bytes = candle_core::Tensor::from_slice(codes.bytes(), codes.elements(), bench.device())?;
        Ok(bytes)
    };
    let x = codes("x", &[rows, inputs], bench.options.seed)?;
    let weight = codes("weight", &[outputs, inputs], bench.options.seed + 1)?;
    let y = DeviceSlab::new(&gpu, 2 * rows * outputs).map_err(engine)?;
    let at = |tensor: &candle_core::Tensor| -> Result<DevPtr> {
        match &*tensor.storage_and_layout().0 {
            candle_core::Storage::Cuda(storage) => Ok(wan_cuda::gpu::address(storage)),
            _ => Err(wan_core::Error::invalid("codes", "on the host", "on the device").into()),
        }
    };
    let places = GemmPlaces { x: at(&x)?, weight: at(&weight)?, bias: DevPtr::NULL, y: y.ptr() };
    let (operand, output, epilogue) = (Operand::E4m3, Float::Bf16, Epilogue::None);
    let gemm = Gemm { rows, outputs, inputs, operand, output, epilogue };
    let times = bench.time(|| {
        // SAFETY: the three hold what the product's sizes say, and live until the timer has waited for it.
        #[allow(unsafe_code)]
        unsafe { gpu.gemm(&gemm, places, 1.0) }.map_err(engine)?;
        Ok(())
    })?;
    let flops = 2.0 * rows as f64 * outputs as f64 * inputs as f64;
    Ok(Bench::figures(times, flops, bench.rates.map(|r| flops / r.fp8)))
}
