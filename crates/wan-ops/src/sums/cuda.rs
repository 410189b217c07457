use candle_core::{Result, Tensor};
use wan_cuda::ops::{self, Function};
use wan_cuda::{DevPtr, Float};

use super::Sums;
use crate::cuda::{Output, Side, float, launch, optional, with_tensor};

/// What is left to apply to sums, on the device.
pub(crate) struct Pending {
    row_scale: Option<Side>,
    bias: Option<Side>,
}

impl Pending {
    pub fn new(op: &str, sums: &Sums) -> Result<Self> {
        let side = |part: &Option<Tensor>| Side::option(op, part.as_ref());
        Ok(Self { row_scale: side(&sums.row_scale)?, bias: side(&sums.bias)? })
    }

    /// As a kernel reads it, of sums of `float` at `x`; valid while this lives.
    pub fn of(&self, float: Float, x: DevPtr) -> ops::Sums {
        let [row_scale, bias] = [&self.row_scale, &self.bias].map(|side| optional(side.as_ref()));
        ops::Sums { float, x, row_scale, bias }
    }
}

pub(super) fn finish(sums: &Sums) -> Result<Tensor> {
    const OP: &str = "finish sums";
    let (rows, dim) = sums.bare().dims2()?;
    let pending = Pending::new(OP, sums)?;
    with_tensor(OP, sums.bare(), |input| {
        let output = Output::new(input.device(), (rows, dim), input.dtype())?;
        let read = pending.of(float(OP, input.dtype())?, input.ptr());
        launch(input.device(), &ops::activate(read, output.ptr(), rows, dim, Function::Identity))?;
        Ok(output.into_tensor())
    })
}
