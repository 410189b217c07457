use candle_core::{DType, Tensor};
use wan_core::{Error, Loader, Result, Stored};

/// Geometry of a [`Conv3d`]; triples are (time, height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Stride.
    pub stride: [usize; 3],
    /// Frames before the first input frame: the last `front` frames of zeros followed by the history.
    /// `kernel[0] - 1` makes the convolution causal and keeps the number of frames at stride 1.
    pub front: usize,
    /// Zero padding in space: (top, bottom, left, right).
    pub padding: [usize; 4],
    /// Doubles height and width by repeating pixels, before the convolution.
    pub upsample: bool,
}

impl ConvSpec {
    /// A causal convolution of an odd `kernel`, stride 1, that keeps frames, height and width.
    pub fn causal(inputs: usize, outputs: usize, kernel: [usize; 3]) -> Self {
        let [t, h, w] = kernel;
        Self {
            inputs,
            outputs,
            kernel,
            stride: [1, 1, 1],
            front: t - 1,
            padding: [h / 2, h / 2, w / 2, w / 2],
            upsample: false,
        }
    }

    /// Frames, height and width of the output for an input of `[t, h, w]`; `None` where the kernel does not fit.
    pub fn output(&self, [t, h, w]: [usize; 3]) -> Option<[usize; 3]> {
        let scale = if self.upsample { 2 } else { 1 };
        let [top, bottom, left, right] = self.padding;
        let padded = [t + self.front, h * scale + top + bottom, w * scale + left + right];
        let mut out = [0; 3];
        for i in 0..3 {
            out[i] = padded[i].checked_sub(self.kernel[i])? / self.stride[i] + 1;
        }
        Some(out)
    }
}

/// A 3-D convolution over channels-last video `[T, H, W, C]`, causal in time.
///
/// Frames before the chunk come as `history`, so that a video convolved chunk by chunk equals the whole.
#[derive(Debug, Clone)]
pub struct Conv3d {
    spec: ConvSpec,
    weight: Stored,
    bias: Tensor,
}

impl Conv3d {
    /// Takes `weight` `[outputs, inputs, kt, kh, kw]` (2-D weights lack `kt`) and `bias` `[outputs]`.
    pub fn load(loader: &Loader, spec: ConvSpec) -> Result<Self> {
        let [kt, kh, kw] = spec.kernel;
        Ok(Self {
            spec,
            weight: loader.stored("weight", &[spec.outputs, spec.inputs, kt, kh, kw])?,
            bias: loader.tensor("bias", &[spec.outputs])?,
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
            && history.dims()[1..] != [h, w, c]
        {
            return Err(Error::shape("convolution history", history.dims(), format!("[c, {h}, {w}, {c}]")));
        }
        let out = [t_out, h_out, w_out, self.spec.outputs];
        if let Some(residual) = residual
            && residual.dims() != out
        {
            return Err(Error::shape("convolution residual", residual.dims(), format!("{out:?}")));
        }
        self.reference(x, history, residual)
    }

    /// The formula in plain tensor operations: one matrix product per tap of the kernel.
    pub fn reference(
        &self,
        x: &Tensor,
        history: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let spec = &self.spec;
        let x32 = x.to_dtype(DType::F32)?;
        let mut frames = match history {
            Some(past) => {
                let kept = past.dim(0)?.min(spec.front);
                Tensor::cat(&[&past.to_dtype(DType::F32)?.narrow(0, past.dim(0)? - kept, kept)?, &x32], 0)?
            }
            None => x32,
        };
        let missing = x.dim(0)? + spec.front - frames.dim(0)?;
        frames = frames.pad_with_zeros(0, missing, 0)?;
        if spec.upsample {
            let (t, h, w, c) = frames.dims4()?;
            frames = frames
                .reshape((t, h, 1, w, 1, c))?
                .broadcast_as((t, h, 2, w, 2, c))?
                .contiguous()?
                .reshape((t, 2 * h, 2 * w, c))?;
        }
        let [top, bottom, left, right] = spec.padding;
        let frames = frames.pad_with_zeros(1, top, bottom)?.pad_with_zeros(2, left, right)?;
        let padded = [frames.dim(0)?, frames.dim(1)?, frames.dim(2)?];
        let mut out = [0; 3];
        for i in 0..3 {
            out[i] = (padded[i] - spec.kernel[i]) / spec.stride[i] + 1;
        }
        let weight = self.weight.to_f32_tensor(x.device())?; // [Co, Ci, kt, kh, kw]
        let rows = out.iter().product::<usize>();
        let mut sum = self.bias.broadcast_as((rows, spec.outputs))?.contiguous()?;
        for a in 0..spec.kernel[0] {
            for b in 0..spec.kernel[1] {
                for c in 0..spec.kernel[2] {
                    let mut tap = frames.clone();
                    for (axis, start) in [a, b, c].into_iter().enumerate() {
                        let index: Vec<u32> =
                            (0..out[axis]).map(|i| (start + i * spec.stride[axis]) as u32).collect();
                        let index = Tensor::new(index, x.device())?;
                        tap = tap.index_select(&index, axis)?;
                    }
                    let w = weight.narrow(2, a, 1)?.narrow(3, b, 1)?.narrow(4, c, 1)?;
                    let w = w.reshape((spec.outputs, spec.inputs))?.t()?;
                    sum = (sum + tap.reshape((rows, spec.inputs))?.matmul(&w.contiguous()?)?)?;
                }
            }
        }
        let y = sum.reshape((out[0], out[1], out[2], spec.outputs))?.to_dtype(x.dtype())?;
        Ok(match residual {
            Some(residual) => (y + residual.to_dtype(x.dtype())?)?,
            None => y,
        })
    }
}
