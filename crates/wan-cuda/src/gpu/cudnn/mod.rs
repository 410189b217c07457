//! cuDNN's fused attention. cuDNN is opened at run time where it is installed, never linked: it is nearly 1 GB.

mod descriptor;
mod library;
mod plan;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::DeviceId;

use self::library::{Handle, Library};
use self::plan::{Plan, PlanKey, Target};
use super::{Gpu, GpuError};
use crate::ops::{AttentionPlaces, AttentionShape};
use crate::{DevPtr, Float};

/// Why cuDNN does not compute an attention.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CudnnError {
    /// It is not installed, or not whole.
    #[error(
        "cudnn: {reason}: install cuDNN 9.13.1 or later where the loader finds it, or choose another attention"
    )]
    Absent {
        /// The loader's words.
        reason: String,
    },
    /// It is older than the fused attention operation.
    #[error("cudnn: found version {}.{}.{}, expected 9.13.1 or later", found / 10000, found / 100 % 100, found % 100)]
    Version {
        /// As cuDNN counts: 91301 is 9.13.1.
        found: usize,
    },
    /// It has no engine for this attention.
    #[error("cudnn: no engine for heads of {head_dim} channels, {queries} queries and {keys} keys: {reason}")]
    Engine {
        /// cuDNN's words about the best one it has, if it has any.
        reason: String,
        /// Channels of a head.
        head_dim: usize,
        /// Queries.
        queries: usize,
        /// Keys.
        keys: usize,
    },
    /// It computes no attention on this machine: it compiles them here, and something it needs for that is missing.
    #[error(
        "cudnn: it cannot compile attention here: {reason}: put CUDA's libnvrtc where the loader finds it, or choose \
         another attention"
    )]
    Unusable {
        /// Its words.
        reason: String,
    },
    /// Its answer.
    #[error("cudnn: {what}: {answer}")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// Its words.
        answer: String,
    },
    /// The GPU's answer.
    #[error("cudnn: {0}")]
    Gpu(#[source] GpuError),
}

impl CudnnError {
    /// Whether cuDNN does not have what was asked for, so that another kernel has to compute it; the rest are failures.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::Version { .. } | Self::Engine { .. } | Self::Unusable { .. }
        )
    }
}

impl From<CudnnError> for candle_core::Error {
    fn from(error: CudnnError) -> Self {
        Self::Cuda(Box::new(error)) // with its type, as of `GpuError`
    }
}

impl From<GpuError> for CudnnError {
    fn from(error: GpuError) -> Self {
        Self::Gpu(error)
    }
}

/// cuDNN for one GPU, with a plan for every shape it has been asked for.
pub struct Cudnn {
    library: Arc<Library>,
    state: Mutex<State>,
}

struct State {
    handle: Handle,
    /// Also why there is none for a shape, so that it is not asked for again.
    plans: HashMap<PlanKey, Result<Plan, CudnnError>>,
}

impl Cudnn {
    /// cuDNN for a GPU, opened at its first use; that it cannot be used is kept as well.
    ///
    /// Errors: those of [`CudnnError::is_absence`] but [`CudnnError::Engine`]; [`CudnnError::Gpu`], which may pass.
    pub fn of(gpu: &Gpu) -> Result<Arc<Self>, CudnnError> {
        type Opened = HashMap<DeviceId, Result<Arc<Cudnn>, CudnnError>>;
        static OPENED: OnceLock<Mutex<Opened>> = OnceLock::new();
        let mut opened = OPENED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        kept(&mut opened, gpu.device().id(), || Self::open(gpu).map(Arc::new))?.clone()
    }

    fn open(gpu: &Gpu) -> Result<Self, CudnnError> {
        let library = Arc::new(Library::open()?);
        let stream = gpu.device().cuda_stream();
        stream.context().bind_to_thread().map_err(GpuError::driver("context"))?;
        let handle = Handle::new(library.clone(), stream.cu_stream().cast()).map_err(unusable)?;
        check_usable(&library, &Target::Handle(&handle))?;
        Ok(Self { library, state: Mutex::new(State { handle, plans: HashMap::new() }) })
    }

    /// `y = softmax(scale q kᵀ) v` for each head; sums and softmax f32.
    ///
    /// Errors: [`CudnnError::Engine`] for what it has no kernel for (f32, heads of no multiple of 8 channels, adding
    /// to the output); [`CudnnError::Status`]; [`CudnnError::Gpu`] without memory for its workspace.
    ///
    /// # Safety
    /// As [`Gpu::launch`](super::Gpu::launch).
    #[allow(unsafe_code)]
    pub unsafe fn attend(
        &self,
        gpu: &Gpu,
        float: Float,
        shape: AttentionShape,
        places: &AttentionPlaces,
        scale: f32,
    ) -> Result<(), CudnnError> {
        let key = PlanKey::new(float, shape, places).ok_or_else(|| no_engine(shape, NOT_TAKEN))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { handle, plans } = &mut *state;
        let stream = gpu.device().cuda_stream();
        stream.context().bind_to_thread().map_err(GpuError::driver("context"))?;
        let plan = kept(plans, key, || {
            Plan::make(&self.library, &Target::Handle(handle), key).map_err(|error| match error {
                CudnnError::Status { answer, .. } => no_engine(shape, answer),
                other => other,
            })
        })?;
        let plan = plan.as_ref().map_err(Clone::clone)?;
        let workspace = gpu.scratch(plan.workspace_bytes().max(1))?;
        gpu.timed("cudnn", || {
            // SAFETY: the caller vouches for the places; the workspace has the size that the plan asks for.
            unsafe { plan.execute(&self.library, handle, places, scale, workspace.ptr()) }
        })
    }
}

/// Whether cuDNN compiles an attention for a GPU that need not be here, told by its properties as cuDNN writes them down
/// (JSON): for tests, on machines without one.
///
/// Errors: as [`Cudnn::attend`]'s, and [`CudnnError::Status`] for properties that are no such.
pub fn compiles_for(
    properties: &str,
    float: Float,
    shape: AttentionShape,
    places: &AttentionPlaces,
) -> Result<(), CudnnError> {
    let library = Arc::new(Library::open()?);
    let key = PlanKey::new(float, shape, places).ok_or_else(|| no_engine(shape, NOT_TAKEN))?;
    let properties = Target::described(&library, properties)?;
    let target = Target::Properties(&properties);
    check_usable(&library, &target)?;
    Plan::make(&library, &target, key)?;
    plan::arguments(&library, places, &1.0, DevPtr::NULL).map(drop)
}

/// That cuDNN has what it needs, said once with its reason and not as if it had no engine for one shape and the next. By
/// compiling the most usual attention: some versions offer engines that they then cannot compile.
fn check_usable(library: &Arc<Library>, target: &Target<'_>) -> Result<(), CudnnError> {
    match Plan::make(library, target, PlanKey::usual()) {
        Ok(_) => Ok(()),
        Err(CudnnError::Engine { .. }) => {
            let reason = library.reason().unwrap_or_else(|| "it does not say why".into());
            Err(CudnnError::Unusable { reason })
        }
        Err(error) => Err(unusable(error)),
    }
}

/// An answer at its opening, as a reason why it cannot be used.
fn unusable(error: CudnnError) -> CudnnError {
    match error {
        CudnnError::Status { answer, .. } => CudnnError::Unusable { reason: answer },
        other => other,
    }
}

/// What is kept under `key`, else what is made now, kept as well: also that it cannot be had, unless the GPU says so, which
/// may have the memory for it another time.
fn kept<K: Eq + Hash, T>(
    map: &mut HashMap<K, Result<T, CudnnError>>,
    key: K,
    make: impl FnOnce() -> Result<T, CudnnError>,
) -> Result<&Result<T, CudnnError>, CudnnError> {
    match map.entry(key) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => match make() {
            Err(error @ CudnnError::Gpu(_)) => Err(error),
            made => Ok(entry.insert(made)),
        },
    }
}

const NOT_TAKEN: &str =
    "it takes bf16 and f16, heads of multiples of 8 channels up to 256, and rows at multiples of 16 bytes";

fn no_engine(shape: AttentionShape, reason: impl Into<String>) -> CudnnError {
    let AttentionShape { queries, keys, head_dim, .. } = shape;
    CudnnError::Engine { head_dim, queries, keys, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::cuda_backend::cudarc::driver::{DriverError, sys::CUresult};

    #[test]
    fn what_may_pass_is_asked_for_again() {
        let mut map = HashMap::new();
        let full = GpuError::driver("cudnn")(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert!(kept(&mut map, 1, || Err::<(), _>(full.into())).is_err());
        assert!(kept(&mut map, 1, || Ok(())).unwrap().is_ok());
        let shape = AttentionShape { queries: 1, keys: 1, heads: 1, head_dim: 8 };
        assert!(kept(&mut map, 2, || Err(no_engine(shape, NOT_TAKEN))).unwrap().is_err());
        assert!(kept(&mut map, 2, || panic!("asked again")).unwrap().is_err());
    }
}
