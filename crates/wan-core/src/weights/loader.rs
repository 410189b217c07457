use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use super::{Delta, Deltas, Stored, WeightSet};
use crate::{Error, Result, WeightsError};

/// Hands out the tensors of a [`WeightSet`] to a model's modules, each once and with its shape checked.
///
/// A missing or misshapen tensor is recorded and replaced by a stand-in, so that one pass over the model finds
/// every problem; [`Loader::load`] raises them together. The model's own `load` code is thus the only
/// description of which tensors it needs.
#[derive(Clone)]
pub struct Loader {
    state: Rc<State>,
    prefix: String,
}

struct State {
    set: WeightSet,
    deltas: Deltas,
    device: Device,
    problems: RefCell<Problems>,
}

#[derive(Default)]
struct Problems {
    taken: BTreeSet<String>,
    changed: BTreeSet<String>,
    missing: Vec<String>,
    misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    dtype: Option<WeightsError>,
}

impl Loader {
    /// Builds a model from `set` (canonical names) for `device`.
    ///
    /// Errors: [`WeightsError::Tensors`] listing everything missing, left over or misshapen, by the names in the
    /// file;
    /// [`WeightsError::Dtype`] for a weight that is not a float.
    pub fn load<T>(set: WeightSet, device: &Device, build: impl FnOnce(&Loader) -> Result<T>) -> Result<T> {
        Self::load_changed(set, Deltas::default(), device, build)
    }

    /// [`Loader::load`] with changes to some tensors (canonical names): [`Loader::tensor`] adds them,
    /// [`Loader::deltas`] hands them out.
    ///
    /// Errors: those of [`Loader::load`]; [`Error::Invalid`] for a change that the model did not ask for, so that
    /// none is lost.
    pub fn load_changed<T>(
        set: WeightSet,
        deltas: Deltas,
        device: &Device,
        build: impl FnOnce(&Loader) -> Result<T>,
    ) -> Result<T> {
        let state = State { set, deltas, device: device.clone(), problems: RefCell::default() };
        let loader = Loader { state: Rc::new(state), prefix: String::new() };
        let built = build(&loader);
        let changed = std::mem::take(&mut loader.state.problems.borrow_mut().changed);
        loader.problems()?; // first: an error of `build` may only be their consequence
        let built = built?;
        match loader.state.deltas.targets().find(|t| !changed.contains(*t)) {
            None => Ok(built),
            Some(lost) => Err(Error::invalid(
                format!("change of tensor {lost}"),
                "a tensor that cannot be changed",
                "a weight",
            )),
        }
    }

    /// The loader of a submodule: `name` and a dot are put before every name.
    pub fn pp(&self, name: impl Display) -> Self {
        Self { state: self.state.clone(), prefix: format!("{}{name}.", self.prefix) }
    }

    /// Device the model is for.
    pub fn device(&self) -> &Device {
        &self.state.device
    }

    /// Whether the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.state.set.get(&self.full(name)).is_some()
    }

    /// A large weight, as stored. Axes of length 1 do not count in the comparison of shapes; the result has
    /// `shape`.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        let full = self.full(name);
        let mut problems = self.state.problems.borrow_mut();
        problems.taken.insert(full.clone());
        let Some(stored) = self.state.set.get(&full) else {
            problems.missing.push(self.state.set.file_name(&full));
            return Ok(Stored::placeholder(full, shape));
        };
        let long_axes = |s: &[usize]| s.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
        if long_axes(stored.shape()) != long_axes(shape) {
            problems.misshapen.push((stored.name().to_string(), stored.shape().to_vec(), shape.to_vec()));
            return Ok(Stored::placeholder(full, shape));
        }
        if !stored.is_float() {
            problems.dtype.get_or_insert(WeightsError::Dtype {
                label: self.state.set.label().to_string(),
                name: stored.name().to_string(),
                found: stored.dtype_name().to_string(),
                expected: "F32, F64, BF16, F16, F8_E4M3 or blocks of GGUF".into(),
            });
            return Ok(Stored::placeholder(full, shape));
        }
        stored.clone().reshape(shape)
    }

    /// The changes to a large weight, which the model applies beside it.
    pub fn deltas(&self, name: &str) -> Vec<Delta> {
        let full = self.full(name);
        let deltas = self.state.deltas.of(&full).to_vec();
        self.state.problems.borrow_mut().changed.insert(full);
        deltas
    }

    /// A small weight (bias, norm, modulation) as an f32 tensor of `shape` on the device, changes included.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.stored(name, shape)?;
        if stored.bytes().is_empty() {
            let zero = Tensor::zeros((), DType::F32, self.device())?;
            return Ok(zero.broadcast_as(shape)?); // a stand-in that takes no memory
        }
        let mut tensor = stored.to_f32_tensor(self.device())?;
        for delta in self.deltas(name) {
            tensor = (tensor + delta.small(shape, self.device())?)?;
        }
        Ok(tensor)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn problems(&self) -> Result<()> {
        let mut problems = self.state.problems.take();
        if let Some(error) = problems.dtype.take() {
            return Err(error.into());
        }
        let set = &self.state.set;
        let left = set.names().zip(set.iter()).filter(|(name, _)| !problems.taken.contains(*name));
        let mut unexpected: Vec<String> = left.map(|(_, stored)| stored.name().to_string()).collect();
        // Several tensors of the model may be one in the file.
        for names in [&mut problems.missing, &mut unexpected] {
            names.sort();
            names.dedup();
        }
        problems.misshapen.dedup();
        if problems.missing.is_empty() && problems.misshapen.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Tensors {
            label: self.state.set.label().to_string(),
            missing: problems.missing,
            unexpected,
            misshapen: problems.misshapen,
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> WeightSet {
        let t = |name: &str, shape: &[usize]| {
            Stored::from_tensor(name, &Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()).unwrap()
        };
        WeightSet::from_tensors("file", [t("a.weight", &[2, 3]), t("a.bias", &[2, 1, 1]), t("extra", &[1])])
    }

    #[test]
    fn all_problems_are_reported_together() {
        let error = Loader::load(set(), &Device::Cpu, |l| {
            let a = l.pp("a");
            a.stored("weight", &[2, 4])?;
            a.tensor("bias", &[2])?;
            l.tensor("absent", &[1000, 1000])
        })
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "file: 1 missing: absent; 1 unexpected: extra; 1 misshapen: a.weight (found [2, 3], expected [2, 4])"
        );
    }

    #[test]
    fn changes_are_added_to_small_tensors_and_never_lost() {
        let diff = Stored::from_tensor("d", &Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap()).unwrap();
        let mut deltas = Deltas::default();
        deltas.add("a.bias", Delta::Full { diff, scale: 0.5 });
        let load = |read_bias: bool| {
            Loader::load_changed(set(), deltas.clone(), &Device::Cpu, |l| {
                l.tensor("extra", &[1])?;
                l.pp("a").stored("weight", &[2, 3])?;
                if read_bias {
                    l.pp("a").tensor("bias", &[2])
                } else {
                    Ok(l.pp("a").stored("bias", &[2])?.to_f32_tensor(l.device())?)
                }
            })
        };
        assert_eq!(load(true).unwrap().to_vec1::<f32>().unwrap(), [1.5, 2.0]);
        assert!(load(false).unwrap_err().to_string().contains("a.bias"));
    }

    #[test]
    fn a_complete_read_succeeds() {
        let bias = Loader::load(set(), &Device::Cpu, |l| {
            l.tensor("extra", &[1])?;
            l.pp("a").stored("weight", &[2, 3])?;
            l.pp("a").tensor("bias", &[2])
        });
        assert_eq!(bias.unwrap().dims(), [2]);
    }
}
