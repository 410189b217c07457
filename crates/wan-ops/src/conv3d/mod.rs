//! Causal 3-D convolution of channels-last video.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
mod spec;
#[cfg(test)]
mod tests;
mod weight;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
pub use spec::ConvSpec;
use wan_core::{Error, Loader, Result, Stored};
use weight::PackedWeight;

/// A 3-D convolution over channels-last video `[T, H, W, C]`, causal in time.
///
/// Frames before the chunk come as `history`, so that a video convolved chunk by chunk equals the whole.
#[derive(Debug, Clone)]
pub struct Conv3d {
    spec: ConvSpec,
    weight: Stored,
    bias: Tensor,
    /// What the CPU half multiplies with, made at first use.
    packed: Arc<OnceLock<PackedWeight>>,
    /// What the CUDA half multiplies with, made at first use.
    #[cfg(feature = "cuda")]
    on_device: Arc<OnceLock<cuda::Weight>>,
}

impl Conv3d {
    /// Takes `weight` `[outputs, inputs, kt, kh, kw]` (2-D weights lack `kt`) and `bias` `[outputs]`.
    pub fn load(loader: &Loader, spec: ConvSpec) -> Result<Self> {
        let [kt, kh, kw] = spec.kernel;
        Ok(Self {
            spec,
            weight: loader.stored("weight", &[spec.outputs, spec.inputs, kt, kh, kw])?,
            bias: loader.tensor("bias", &[spec.outputs])?,
            packed: Arc::default(),
            #[cfg(feature = "cuda")]
            on_device: Arc::default(),
        })
    }

    /// A convolution from its parts: `weight` `[outputs, inputs, kt, kh, kw]`, `bias` `[outputs]` f32.
    ///
    /// Errors: [`Error::Shape`].
    pub fn new(spec: ConvSpec, weight: Stored, bias: Tensor) -> Result<Self> {
        let [kt, kh, kw] = spec.kernel;
        let shape = [spec.outputs, spec.inputs, kt, kh, kw];
        if weight.shape() != shape {
            return Err(Error::shape(weight.name(), weight.shape(), format!("{shape:?}")));
        }
        if bias.dims() != [spec.outputs] {
            let what = format!("bias of {}", weight.name());
            return Err(Error::shape(what, bias.dims(), format!("[{}]", spec.outputs)));
        }
        Ok(Self {
            spec,
            weight,
            bias,
            packed: Arc::default(),
            #[cfg(feature = "cuda")]
            on_device: Arc::default(),
        })
    }

    /// Geometry.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Convolves one chunk.
    ///
    /// - `x`: `[T, H, W, inputs]`
    /// - `history`: `[c, H, W, inputs]`, the frames right before `x`; only the last `spec.front` are used,
    ///   missing ones are zero
    /// - `residual`: of the output's shape, added to it
    /// - returns `[T', H', W', outputs]` in x's dtype, sums in f32
    ///
    /// Errors: [`Error::Shape`].
    pub fn forward(&self, x: &Tensor, history: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
        let (t, h, w, c) = x.dims4()?;
        if c != self.spec.inputs {
            return Err(Error::shape(
                self.weight.name(),
                x.dims(),
                format!("[T, H, W, {}]", self.spec.inputs),
            ));
        }
        let Some([t_out, h_out, w_out]) = self.spec.output([t, h, w]) else {
            return Err(Error::shape(
                self.weight.name(),
                x.dims(),
                format!("an input of at least the kernel {:?}", self.spec.kernel),
            ));
        };
        if let Some(history) = history
            && (history.rank() != 4 || history.dims()[1..] != [h, w, c])
        {
            return Err(Error::shape("convolution history", history.dims(), format!("[c, {h}, {w}, {c}]")));
        }
        let out = [t_out, h_out, w_out, self.spec.outputs];
        if let Some(residual) = residual
            && residual.dims() != out
        {
            return Err(Error::shape("convolution residual", residual.dims(), format!("{out:?}")));
        }
        Ok(x.apply_op1_no_bwd(&Convolution { layer: self, history, residual, out })?)
    }
}

struct Convolution<'a> {
    layer: &'a Conv3d,
    history: Option<&'a Tensor>,
    residual: Option<&'a Tensor>,
    out: [usize; 4],
}

impl CustomOp1 for Convolution<'_> {
    fn name(&self) -> &'static str {
        "conv3d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::forward(self, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::forward(self, storage, layout)
    }
}
