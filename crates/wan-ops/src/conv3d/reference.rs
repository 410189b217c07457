use candle_core::{DType, Tensor};
use wan_core::Result;

use super::Conv3d;

impl Conv3d {
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
