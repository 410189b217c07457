use candle_core::{D, DType, Tensor};
use wan_core::device::to_host;
use wan_core::{Error, Result};

/// Errors with [`Error::NonFinite`], naming `stage`, if any value of `t` (of one axis or more) is NaN or infinite.
pub(crate) fn check_finite(stage: &str, t: &Tensor) -> Result<()> {
    // A sum is finite unless a value is not, or it overflows: only then are the values counted. Lines are summed
    // first, which a GPU does side by side.
    let lines = t.to_dtype(DType::F32)?.abs()?.sum(D::Minus1)?;
    let sum = to_host(&lines.sum_all()?)?.to_scalar::<f32>()?;
    if sum.is_finite() {
        return Ok(());
    }
    let values = to_host(t)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let count = values.iter().filter(|v| !v.is_finite()).count();
    if count == 0 {
        return Ok(());
    }
    Err(Error::NonFinite { stage: stage.to_string(), count, total: values.len() })
}
