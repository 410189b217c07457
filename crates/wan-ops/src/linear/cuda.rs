use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{DType, Layout, Result, Shape, Tensor, bail};
use wan_core::weights::Scale;
use wan_core::{Error, Stored};
use wan_cuda::gpu::{Epilogue, Gemm, GemmPlaces, Gpu, Operand, ScratchGuard};
use wan_cuda::ops::{self, Blocks, Function, LONGEST_ROW, Storage, Sums};
use wan_cuda::{DevPtr, Float};

use super::place::{Factors, Located};
use super::{Linear, LinearOp};
use crate::cuda::{Input, Output, Side, float, function, gemm, launch, optional, with_tensor};
use crate::rows::cuda::{Codes, quantise, quantise_activated};
use crate::{Activation, Precision, QuantisedRows, RowFormat, Rows};

pub(super) fn forward(op: &LinearOp<'_>, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let input = Input::new(x, layout)?;
    let (layer, device) = (op.layer, input.device());
    let (inputs, outputs) = (layer.inputs(), layer.outputs());
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let output = Output::new(device, dims, input.dtype())?;
    let rows = layout.shape().elem_count() / inputs.max(1);
    let gpu = Gpu::of(device)?;
    let product = Product::new(layer, &gpu, input.dtype(), rows, output.ptr())?;
    if rows == 0 || outputs == 0 {
        return Ok(output.finish());
    }
    match product.factor_in_fp8() {
        Some(factor) => {
            let codes = Codes::new(device, (rows, inputs))?;
            let x = Sums::plain(product.float, input.ptr());
            let [at, row_scale] = codes.places();
            launch(device, &ops::activate_quantise(x, [at, row_scale], rows, inputs, Function::Identity))?;
            product.multiply_codes(at, factor)?;
            let bias = Side::option("linear", layer.bias.as_ref())?;
            let sums = product.sums(row_scale, optional(bias.as_ref()));
            launch(device, &ops::activate(sums, product.y, rows, outputs, function(op.activation)))?;
        }
        None => product.widened(input.ptr(), op.activation)?,
    }
    Ok(output.finish())
}

/// Rows that are in FP8 already, to rows of `format`; scales, bias and activation follow the product in one pass, and
/// so does rounding to FP8 again.
pub(super) fn forward_quantised(
    layer: &Linear,
    x: &QuantisedRows,
    activation: Activation,
    format: RowFormat,
) -> Result<Rows> {
    const OP: &str = "linear";
    let shape = (x.codes().dims2()?.0, layer.outputs());
    let bias = Side::option(OP, layer.bias.as_ref())?;
    with_tensor(OP, x.codes(), |codes| {
        with_tensor(OP, x.scales(), |scales| {
            let device = codes.device();
            let y = Output::new(device, shape, x.dtype())?;
            let gpu = Gpu::of(device)?;
            let product = Product::new(layer, &gpu, x.dtype(), shape.0, y.ptr())?;
            product.multiply_codes(codes.ptr(), product.expected_factor()?)?;
            let sums = product.sums(scales.ptr(), optional(bias.as_ref()));
            let function = function(activation);
            match format {
                RowFormat::Quantised(dtype) => {
                    Ok(quantise_activated(device, sums, shape, function, dtype)?.into())
                }
                RowFormat::Float(dtype) => {
                    launch(device, &ops::activate(sums, y.ptr(), shape.0, shape.1, function))?;
                    Ok(Rows::Float(y.into_tensor().to_dtype(dtype)?))
                }
            }
        })
    })
}

/// Rows that come in parts, to one output `[rows, outputs]` of `dtype`. Products in FP8 are left as bare sums.
pub(super) fn forward_parts(
    layer: &Linear,
    device: &CudaDevice,
    (rows, dtype): (usize, DType),
    parts: impl Iterator<Item = wan_core::Result<Rows>>,
) -> wan_core::Result<crate::Sums> {
    let y = Output::new(device, (rows, layer.outputs()), dtype)?;
    let row_bytes = layer.outputs() * dtype.size_in_bytes();
    let (mut done, mut scales) = (0, Vec::new());
    for part in parts {
        let part = part?;
        let count = part.count()?;
        if part.dtype() != dtype || done + count > rows {
            let found = format!("{} rows of {}", done + count, part.dtype().as_str());
            return Err(Error::invalid(
                "parts of a product",
                found,
                format!("{rows} rows of {}", dtype.as_str()),
            ));
        }
        scales.extend(multiply_into(layer, &part, y.ptr().offset(done * row_bytes))?);
        done += count;
    }
    if done != rows {
        return Err(Error::invalid("parts of a product", format!("{done} rows"), format!("{rows} rows")));
    }
    let row_scale = match scales.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(Tensor::cat(several, 0)?),
    };
    let bias = row_scale.as_ref().and(layer.bias.clone());
    crate::Sums::new(y.into_tensor(), row_scale, bias)
}

/// One part: sums of FP8 codes, whose scales are returned, or finished values.
fn multiply_into(layer: &Linear, x: &Rows, y: DevPtr) -> Result<Option<Tensor>> {
    const OP: &str = "linear";
    match x {
        Rows::Quantised(x) => with_tensor(OP, x.codes(), |codes| {
            let gpu = Gpu::of(codes.device())?;
            let product = Product::new(layer, &gpu, x.dtype(), x.codes().dims2()?.0, y)?;
            product.multiply_codes(codes.ptr(), product.expected_factor()?)?;
            Ok(Some(x.scales().clone()))
        }),
        Rows::Float(x) => with_tensor(OP, x, |input| {
            let gpu = Gpu::of(input.device())?;
            let product = Product::new(layer, &gpu, x.dtype(), x.dims2()?.0, y)?;
            if product.factor_in_fp8().is_some() {
                return multiply_into(layer, &quantise(x)?.into(), y);
            }
            product.widened(input.ptr(), Activation::Identity)?;
            Ok(None)
        }),
    }
}

/// Whether a layer's products of activations of `dtype` are in FP8.
pub(super) fn multiplies_in_fp8(layer: &Linear, device: &CudaDevice, dtype: DType) -> bool {
    let (Ok(gpu), Ok(float)) = (Gpu::of(device), float("linear", dtype)) else { return false };
    factor_in_fp8(layer, gpu.capability(), float).is_some()
}

/// The factor of all weights, if a layer is to be multiplied in FP8 and can be.
fn factor_in_fp8(layer: &Linear, capability: (u32, u32), float: Float) -> Option<f32> {
    let stored = layer.stored();
    let factor = match stored.scale() {
        None => 1.0,
        Some(Scale::Tensor(factor)) => *factor,
        // A factor of each output would have to be applied behind the sum.
        Some(Scale::Rows(_)) => return None,
    };
    let fits = Gemm::fits_fp8(capability, layer.outputs(), layer.inputs());
    let codes = stored.dtype() == DType::F8E4M3 && float != Float::F32;
    (layer.precision == Precision::Fp8 && codes && fits && layer.inputs() <= LONGEST_ROW).then_some(factor)
}

/// One product of a layer.
struct Product<'a> {
    layer: &'a Linear,
    gpu: &'a Gpu,
    float: Float,
    dtype: DType,
    y: DevPtr,
    rows: usize,
}

impl<'a> Product<'a> {
    /// Of `rows` rows of `dtype`, written to `y`.
    fn new(layer: &'a Linear, gpu: &'a Gpu, dtype: DType, rows: usize, y: DevPtr) -> Result<Self> {
        Ok(Self { layer, gpu, float: float("linear", dtype)?, dtype, y, rows })
    }

    fn gemm(&self, operand: Operand, epilogue: Epilogue) -> Gemm {
        let (outputs, inputs) = (self.layer.outputs(), self.layer.inputs());
        Gemm { rows: self.rows, outputs, inputs, operand, output: self.float, epilogue }
    }

    fn factor_in_fp8(&self) -> Option<f32> {
        factor_in_fp8(self.layer, self.gpu.capability(), self.float)
    }

    /// The factor of a layer that rows were quantised for.
    fn expected_factor(&self) -> Result<f32> {
        let name = self.layer.weight.name();
        let none = || format!("{name}: found rows in FP8, expected floats: it is not multiplied in FP8");
        self.factor_in_fp8().ok_or_else(|| candle_core::Error::Msg(none()))
    }

    /// Codes of rows times the stored codes.
    fn multiply_codes(&self, codes: DevPtr, factor: f32) -> Result<()> {
        let weight = self.layer.on_device.weight(self.gpu.device(), self.layer.stored())?;
        let places = GemmPlaces { x: codes, weight: weight.start, bias: DevPtr::NULL, y: self.y };
        gemm(self.gpu, &self.gemm(Operand::E4m3, Epilogue::None), places, factor)
    }

    /// `y` with what is left to apply to it.
    fn sums(&self, row_scale: DevPtr, bias: DevPtr) -> Sums {
        Sums { float: self.float, x: self.y, row_scale, bias }
    }

    /// The weight in the activations' format, in place where it is stored so, else widened into scratch.
    fn widened(&self, x: DevPtr, activation: Activation) -> Result<()> {
        let device = self.gpu.device();
        let weight = Widened::new(self)?;
        let bias = self.layer.bias.as_ref().map(|b| self.layer.on_device.bias(b, self.dtype)).transpose()?;
        // f32 is for comparisons: its epilogue is cublasLt's only where every version has it.
        let gelu = activation == Activation::GeluTanh && self.float != Float::F32;
        let epilogue = match (&bias, gelu) {
            (None, false) => Epilogue::None,
            (None, true) => Epilogue::GeluTanh,
            (Some(_), false) => Epilogue::Bias,
            (Some(_), true) => Epilogue::BiasGeluTanh,
        };
        let bias_at = match &bias {
            Some(bias) => with_tensor("linear", bias, |b| Ok(b.ptr()))?,
            None => DevPtr::NULL,
        };
        let places = GemmPlaces { x, weight: weight.start, bias: bias_at, y: self.y };
        gemm(self.gpu, &self.gemm(Operand::Float(self.float), epilogue), places, 1.0)?;
        if gelu || activation == Activation::Identity {
            return Ok(());
        }
        let sums = Sums::plain(self.float, self.y);
        launch(device, &ops::activate(sums, self.y, self.rows, self.layer.outputs(), function(activation)))
    }
}

/// A weight in the activations' format, valid for what is launched while this lives.
struct Widened<'a> {
    start: DevPtr,
    _stored: Located,
    _factors: Option<Factors>,
    _scratch: Option<ScratchGuard<'a>>,
}

impl<'a> Widened<'a> {
    fn new(product: &Product<'a>) -> Result<Self> {
        let (gpu, layer) = (product.gpu, product.layer);
        let (device, stored) = (gpu.device(), layer.stored());
        let located = layer.on_device.weight(device, stored)?;
        let factors = stored.scale().map(|scale| layer.on_device.factors(device, scale)).transpose()?;
        let storage = storage(stored, factors.as_ref())?;
        let scratch = if storage == Storage::Float(product.float) {
            None
        } else {
            Some(gpu.scratch(stored.elements() * product.float.size())?)
        };
        let start = scratch.as_ref().map_or(located.start, ScratchGuard::ptr);
        let (outputs, inputs) = (layer.outputs(), layer.inputs());
        if let Some(widen) = ops::dequantise(storage, located.start, (product.float, start), outputs, inputs)
        {
            launch(device, &widen)?;
        }
        Ok(Self { start, _stored: located, _factors: factors, _scratch: scratch })
    }
}

fn storage(stored: &Stored, factors: Option<&Factors>) -> Result<Storage> {
    if let Some(blocks) = stored.block_format().and_then(|format| Blocks::named(format.name())) {
        return Ok(Storage::Blocks(blocks));
    }
    Ok(match (stored.dtype(), factors) {
        (DType::F32, _) => Storage::Float(Float::F32),
        (DType::BF16, _) => Storage::Float(Float::Bf16),
        (DType::F16, _) => Storage::Float(Float::F16),
        (DType::F8E4M3, None) => Storage::E4m3 { scale: DevPtr::NULL, stride: 0 },
        (DType::F8E4M3, Some(f)) => Storage::E4m3 { scale: f.start, stride: f.stride },
        _ => bail!(
            "{}: found dtype {} on cuda, expected F32, BF16, F16, F8_E4M3 or blocks of GGUF",
            stored.name(),
            stored.dtype_name()
        ),
    })
}
