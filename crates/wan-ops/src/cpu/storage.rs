use std::borrow::Cow;
use std::ops::Deref;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::rows::for_row_blocks;

/// A tensor's values as f32 in row-major order: borrowed where they lie so already, else widened and gathered.
///
/// Errors: an integer dtype.
pub(crate) fn values<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    match storage {
        CpuStorage::F32(v) => match layout.contiguous_offsets() {
            Some((from, to)) => Ok(Cow::Borrowed(&v[from..to])),
            None => Ok(Cow::Owned(gather(v, layout, |v| v))),
        },
        CpuStorage::BF16(v) => Ok(Cow::Owned(gather(v, layout, bf16::to_f32))),
        CpuStorage::F16(v) => Ok(Cow::Owned(gather(v, layout, f16::to_f32))),
        CpuStorage::F64(v) => Ok(Cow::Owned(gather(v, layout, |v| v as f32))),
        CpuStorage::F8E4M3(v) => Ok(Cow::Owned(gather(v, layout, |v| v.to_f32()))),
        other => bail!(
            "{op}: found dtype {:?}, expected a float",
            candle_core::backend::BackendStorage::dtype(other)
        ),
    }
}

fn gather<T: WithDType>(values: &[T], layout: &Layout, widen: impl Fn(T) -> f32 + Sync) -> Vec<f32> {
    if let Some((from, to)) = layout.contiguous_offsets() {
        return values[from..to].par_iter().with_min_len(1 << 14).map(|v| widen(*v)).collect();
    }
    let (dims, strides) = (layout.dims(), layout.stride());
    let (Some((&width, outer)), Some((&step, outer_strides))) = (dims.split_last(), strides.split_last())
    else {
        return vec![widen(values[layout.start_offset()])];
    };
    let mut out = vec![0f32; layout.shape().elem_count()];
    if out.is_empty() {
        return out;
    }
    for_row_blocks(&mut out, width, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            // Where this row of the last axis starts: the digits of its number, slowest axis first.
            let (mut rest, mut from) = (first + i, layout.start_offset());
            for (dim, stride) in outer.iter().zip(outer_strides).rev() {
                from += rest % dim * stride;
                rest /= dim;
            }
            for (k, out) in row.iter_mut().enumerate() {
                *out = widen(values[from + k * step]);
            }
        }
    });
    out
}

/// f32 results as a storage of `dtype`, rounded once.
///
/// Errors: an integer dtype.
pub(crate) fn rounded(op: &str, values: Vec<f32>, dtype: DType) -> Result<CpuStorage> {
    fn narrow<T: Send>(values: &[f32], round: impl Fn(f32) -> T + Sync) -> Vec<T> {
        values.par_iter().with_min_len(1 << 14).map(|v| round(*v)).collect()
    }
    Ok(match dtype {
        DType::F32 => CpuStorage::F32(values),
        DType::BF16 => CpuStorage::BF16(narrow(&values, bf16::from_f32)),
        DType::F16 => CpuStorage::F16(narrow(&values, f16::from_f32)),
        DType::F64 => CpuStorage::F64(narrow(&values, f64::from)),
        other => bail!("{op}: found dtype {other:?}, expected f32, bf16, f16 or f64"),
    })
}

/// Read access to a tensor on the CPU that comes beside an op's main inputs.
pub(crate) struct Reader<'a, G> {
    op: &'static str,
    storage: G,
    layout: &'a Layout,
}

/// Opens `tensor` for `op`.
pub(crate) fn read<'a>(
    op: &'static str,
    tensor: &'a Tensor,
) -> Reader<'a, impl Deref<Target = Storage> + use<'a>> {
    let (storage, layout) = tensor.storage_and_layout();
    Reader { op, storage, layout }
}

impl<G: Deref<Target = Storage>> Reader<'_, G> {
    /// The tensor's values as f32, row-major.
    ///
    /// Errors: a tensor on another device than the CPU, or of an integer dtype.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        match &*self.storage {
            Storage::Cpu(storage) => values(self.op, storage, self.layout),
            _ => bail!("{}: found an argument on another device, expected the cpu like the input", self.op),
        }
    }
}

/// A small tensor's values as f32, copied.
pub(crate) fn copied(op: &'static str, tensor: &Tensor) -> Result<Vec<f32>> {
    let reader = read(op, tensor);
    let values = reader.values()?.into_owned();
    Ok(values)
}
