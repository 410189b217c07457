use candle_core::{DType, Tensor};
use rayon::prelude::*;
use wan_core::Result;
use wan_core::device::to_host;

use super::Format;

/// Rows of f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Length of a row.
    pub columns: usize,
    /// Row after row.
    pub values: Vec<f64>,
}

impl Matrix {
    /// A float tensor's values, its last axis the columns.
    ///
    /// Errors: a tensor that cannot be copied to the host.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let columns = tensor.dims().last().copied().unwrap_or(1);
        let values = to_host(&tensor.to_dtype(DType::F32)?)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self { columns, values: values.into_iter().map(f64::from).collect() })
    }

    /// The given rows of a tensor `[..., columns]`.
    ///
    /// Errors: as [`Self::of`]; a row that is not there.
    pub fn rows_of(tensor: &Tensor, rows: &[usize]) -> Result<Self> {
        let columns = tensor.dims().last().copied().unwrap_or(1);
        let flat = tensor.reshape(((), columns))?;
        if rows.len() == flat.dim(0)? {
            return Self::of(&flat);
        }
        let index: Vec<u32> = rows.iter().map(|r| *r as u32).collect();
        Self::of(&flat.index_select(&Tensor::new(index, tensor.device())?, 0)?)
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    /// The matrix whose rows are made from these.
    pub fn map_rows(&self, map: impl Fn(usize, &[f64]) -> Vec<f64> + Sync) -> Self {
        let rows: Vec<Vec<f64>> = (0..self.rows()).into_par_iter().map(|i| map(i, self.row(i))).collect();
        Self { columns: rows.first().map_or(0, Vec::len), values: rows.concat() }
    }
}

/// `x wᵀ + bias`: `x` `[rows, inputs]`, `weight` `[outputs, inputs]`.
pub fn linear(format: Format, x: &Matrix, weight: &Matrix, bias: Option<&[f64]>) -> Matrix {
    // A linear layer is one operation: the bias is added before the sum is rounded.
    x.map_rows(|_, row| {
        (0..weight.rows())
            .map(|output| {
                let bias = bias.map_or(0.0, |b| b[output]);
                let pairs = row.iter().copied().zip(weight.row(output).iter().copied());
                format.dot(pairs.chain([(bias, 1.0)]))
            })
            .collect()
    })
}
