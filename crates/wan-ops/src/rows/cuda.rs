use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Result, Tensor};
use wan_cuda::ops::{self, Function, Sums};

use super::QuantisedRows;
use crate::cuda::{Output, check_row, float, launch, with_tensor};

/// Rows of `x` `[rows, dim]` rounded to e4m3.
pub(crate) fn quantise(x: &Tensor) -> Result<QuantisedRows> {
    const OP: &str = "quantise";
    with_tensor(OP, x, |input| {
        let plain = Sums::plain(float(OP, x.dtype())?, input.ptr());
        quantise_activated(input.device(), plain, x.dims2()?, Function::Identity, x.dtype())
    })
}

/// Rows of `function(row_scale x + bias)`, `[rows, dim]`, rounded to e4m3 for values of `dtype`.
pub(crate) fn quantise_activated(
    device: &CudaDevice,
    x: Sums,
    (rows, dim): (usize, usize),
    function: Function,
    dtype: DType,
) -> Result<QuantisedRows> {
    check_row("quantise", dim)?;
    let codes = Codes::new(device, (rows, dim))?;
    launch(device, &ops::activate_quantise(x, codes.places(), rows, dim, function))?;
    Ok(codes.finish(dtype))
}

/// Memory for quantised rows.
pub(crate) struct Codes {
    codes: Output,
    scales: Output,
}

impl Codes {
    /// Unwritten.
    pub fn new(device: &CudaDevice, (rows, dim): (usize, usize)) -> Result<Self> {
        let codes = Output::new(device, (rows, dim), DType::F8E4M3)?;
        Ok(Self { codes, scales: Output::new(device, rows, DType::F32)? })
    }

    /// Codes and scales.
    pub fn places(&self) -> [wan_cuda::DevPtr; 2] {
        [self.codes.ptr(), self.scales.ptr()]
    }

    /// As the rows that a kernel has written, for values of `dtype`.
    pub fn finish(self, dtype: DType) -> QuantisedRows {
        QuantisedRows { codes: self.codes.into_tensor(), scales: self.scales.into_tensor(), dtype }
    }
}
