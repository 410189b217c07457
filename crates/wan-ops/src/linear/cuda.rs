use candle_core::cuda_backend::CudaStorage;
use candle_core::{DType, Layout, Result, Shape, bail};
use wan_core::Stored;
use wan_core::weights::Scale;
use wan_cuda::gpu::{Epilogue, Gemm, GemmPlaces, Gpu, Operand, ScratchGuard};
use wan_cuda::ops::{self, Function, LONGEST_ROW, Preactivation, Storage};
use wan_cuda::{DevPtr, Float};

use super::place::{Factors, Located};
use super::{Linear, LinearOp};
use crate::cuda::{Input, Output, Side, float, function, gemm, launch, optional};
use crate::{Activation, Precision};

pub(super) fn forward(op: &LinearOp<'_>, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let input = Input::new(x, layout)?;
    let (layer, activation) = (op.layer, op.activation);
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = layer.outputs();
    }
    let output = Output::new(input.device(), dims, input.dtype())?;
    let gpu = Gpu::of(input.device())?;
    let product = Product {
        layer,
        gpu: &gpu,
        float: float("linear", input.dtype())?,
        dtype: input.dtype(),
        x: input.ptr(),
        y: output.ptr(),
        rows: layout.shape().elem_count() / layer.inputs().max(1),
    };
    if product.rows > 0 && layer.outputs() > 0 {
        match product.factor_in_fp8() {
            Some(factor) => product.in_fp8(factor, activation)?,
            None => product.widened(activation)?,
        }
    }
    Ok(output.finish())
}

/// One product of a layer.
struct Product<'a> {
    layer: &'a Linear,
    gpu: &'a Gpu,
    float: Float,
    dtype: DType,
    x: DevPtr,
    y: DevPtr,
    rows: usize,
}

impl Product<'_> {
    fn gemm(&self, operand: Operand, epilogue: Epilogue) -> Gemm {
        let (outputs, inputs) = (self.layer.outputs(), self.layer.inputs());
        Gemm { rows: self.rows, outputs, inputs, operand, output: self.float, epilogue }
    }

    /// The factor of all weights, if the layer is to be multiplied in FP8 and can be.
    fn factor_in_fp8(&self) -> Option<f32> {
        let stored = self.layer.stored();
        let factor = match stored.scale() {
            None => 1.0,
            Some(Scale::Tensor(factor)) => *factor,
            // A factor of each output would have to be applied behind the sum.
            Some(Scale::Rows(_)) => return None,
        };
        let fits = Gemm::fits_fp8(self.gpu.capability(), self.layer.outputs(), self.layer.inputs());
        let codes = stored.dtype() == DType::F8E4M3 && self.float != Float::F32;
        (self.layer.precision == Precision::Fp8 && codes && fits && self.layer.inputs() <= LONGEST_ROW)
            .then_some(factor)
    }

    /// Rows of x rounded to e4m3 with a scale each, times the stored codes; scale, bias and activation follow in one
    /// pass over the result.
    fn in_fp8(&self, factor: f32, activation: Activation) -> Result<()> {
        let device = self.gpu.device();
        let (rows, inputs, outputs) = (self.rows, self.layer.inputs(), self.layer.outputs());
        let codes = Output::new(device, (rows, inputs), DType::U8)?;
        let scales = Output::new(device, rows, DType::F32)?;
        let x = Preactivation::plain(self.float, self.x);
        let places = [codes.ptr(), scales.ptr()];
        launch(device, &ops::activate_quantise(x, places, rows, inputs, Function::Identity))?;
        let weight = self.layer.on_device.weight(device, self.layer.stored())?;
        let places = GemmPlaces { x: codes.ptr(), weight: weight.start, bias: DevPtr::NULL, y: self.y };
        gemm(self.gpu, &self.gemm(Operand::E4m3, Epilogue::None), places, factor)?;
        let bias = Side::option("linear", self.layer.bias.as_ref())?;
        let bias = optional(bias.as_ref());
        let sums = Preactivation { float: self.float, x: self.y, row_scale: scales.ptr(), bias };
        launch(device, &ops::activate(sums, self.y, rows, outputs, function(activation)))
    }

    /// The weight in the activations' format, in place where it is stored so, else widened into scratch.
    fn widened(&self, activation: Activation) -> Result<()> {
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
            Some(bias) => crate::cuda::with_tensor("linear", bias, |b| Ok(b.ptr()))?,
            None => DevPtr::NULL,
        };
        let places = GemmPlaces { x: self.x, weight: weight.start, bias: bias_at, y: self.y };
        gemm(self.gpu, &self.gemm(Operand::Float(self.float), epilogue), places, 1.0)?;
        if gelu || activation == Activation::Identity {
            return Ok(());
        }
        let sums = Preactivation::plain(self.float, self.y);
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
    Ok(match (stored.dtype(), factors) {
        (DType::F32, _) => Storage::Float(Float::F32),
        (DType::BF16, _) => Storage::Float(Float::Bf16),
        (DType::F16, _) => Storage::Float(Float::F16),
        (DType::F8E4M3, None) => Storage::E4m3 { scale: DevPtr::NULL, stride: 0 },
        (DType::F8E4M3, Some(f)) => Storage::E4m3 { scale: f.start, stride: f.stride },
        (DType::U8, _) if stored.is_float() => Storage::Q8_0,
        _ => bail!(
            "{}: found dtype {} on cuda, expected F32, BF16, F16, F8_E4M3 or Q8_0",
            stored.name(),
            stored.dtype_name()
        ),
    })
}
