use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_core::device::to_host;

use crate::error::{Failure, Outcome};

/// Named output tensors.
pub type Outputs = BTreeMap<String, Tensor>;

/// One named output.
pub fn output(name: &str, tensor: Tensor) -> Outcome<Outputs> {
    Ok([(name.to_string(), to_host(&tensor)?.to_dtype(DType::F32)?)].into())
}

/// The tensors of an input file.
pub struct Inputs(WeightSet);

impl Inputs {
    /// Opens an input file.
    pub fn open(path: &Path) -> Outcome<Self> {
        Ok(Self(WeightSet::open(path)?))
    }

    /// A float tensor as f32 on the CPU, if present.
    pub fn optional_f32(&self, name: &str) -> Outcome<Option<Tensor>> {
        Ok(self.0.get(name).map(|t| t.to_f32_tensor(&Device::Cpu)).transpose()?)
    }

    /// A float tensor as f32 on the CPU.
    pub fn f32(&self, name: &str) -> Outcome<Tensor> {
        self.optional_f32(name)?.ok_or_else(|| self.missing(name))
    }

    /// An i64 tensor on the CPU.
    pub fn i64(&self, name: &str) -> Outcome<Tensor> {
        let stored = self.0.get(name).ok_or_else(|| self.missing(name))?;
        if stored.dtype() != DType::I64 {
            return Err(Failure::run(format!(
                "{}: tensor {name}: found dtype {:?}, expected i64",
                self.0.label(),
                stored.dtype()
            )));
        }
        let values: Vec<i64> =
            stored.bytes().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        Ok(Tensor::from_vec(values, stored.shape(), &Device::Cpu)?)
    }

    fn missing(&self, name: &str) -> Failure {
        let found = self.0.names().take(8).collect::<Vec<_>>().join(", ");
        Failure::run(format!("{}: no tensor {name}: found {found}", self.0.label()))
    }
}
