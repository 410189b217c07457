//! Which of cublasLt's algorithms a product runs with: timed once for each shape, then remembered.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys::{
    self, cublasLtMatmulAlgo_t as Algorithm, cublasLtMatmulHeuristicResult_t as Candidate,
    cublasLtMatmulPreferenceAttributes_t as Preference,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;

use super::{Call, Gemm, WORKSPACE_BYTES};
use crate::gpu::{GpuError, machine};
use crate::{Choices, ChoicesError};

/// Algorithms that are timed.
const CANDIDATES: usize = 8;
/// Runs of each that count, after one that does not.
const RUNS: u32 = 3;
/// By how much another algorithm must beat cublasLt's first choice: less is noise, and would make results depend on it. Of
/// short products most of the time is that of launches, whose gaps differ by so many milliseconds.
const MARGIN: f32 = 0.98;
const LAUNCHES: f32 = 0.005;
/// How long a GPU computes before anything is timed: one that was idle first raises its clocks.
const WARMING: Duration = Duration::from_millis(50);

/// A shape, and the alignment of its addresses.
type Key = (Gemm, u32);

pub(super) struct Tuning {
    chosen: HashMap<Key, Algorithm>,
    /// Those of earlier processes on the same GPU, driver and library, for which alone a choice is good.
    kept: Choices,
    warm: bool,
}

impl Tuning {
    pub fn new(device: &CudaDevice) -> Self {
        // SAFETY: takes no arguments.
        #[allow(unsafe_code)]
        let library = unsafe { sys::cublasLtGetVersion() };
        let machine = format!("{}, cublasLt {library}", machine(device));
        Self { chosen: HashMap::new(), kept: Choices::new(machine), warm: false }
    }

    /// Takes the choices kept in `folder`, and keeps later ones there.
    pub fn keep(&mut self, folder: &Path) -> Result<(), ChoicesError> {
        self.kept.keep(folder)
    }

    /// The algorithm for a product.
    pub fn algorithm(&mut self, gemm: &Gemm, call: &Call<'_>) -> Result<Algorithm, GpuError> {
        let key = (*gemm, call.places.alignment());
        if let Some(algorithm) = self.chosen.get(&key) {
            return Ok(*algorithm);
        }
        let name = format!("{gemm:?}, aligned to {}", key.1);
        let kept = self.kept.get(&name).map(|data| Algorithm { data: *data });
        let algorithm = match kept.filter(|algorithm| is_usable(call, algorithm)) {
            Some(algorithm) => algorithm,
            None => {
                let candidates = candidates(call, key.1).map_err(GpuError::blas("cublasLt's heuristic"))?;
                if !std::mem::replace(&mut self.warm, true) {
                    warm(call, &candidates);
                }
                let algorithm = choose(call, &candidates)?;
                // Losing a choice costs some milliseconds in the next process.
                let _ = self.kept.insert(name, algorithm.data);
                algorithm
            }
        };
        self.chosen.insert(key, algorithm);
        Ok(algorithm)
    }
}

/// Whether cublasLt takes an algorithm read from a file.
fn is_usable(call: &Call<'_>, algorithm: &Algorithm) -> bool {
    let d = call.descriptors;
    let mut answer = MaybeUninit::<Candidate>::zeroed(); // which is a value of it: not all of it is written
    // SAFETY: handle and descriptors are alive; zeros and what is written over them are an answer.
    #[allow(unsafe_code)]
    unsafe {
        let handle = call.gpu.blas.handle;
        sys::cublasLtMatmulAlgoCheck(
            handle,
            d.product,
            d.weight,
            d.x,
            d.y,
            d.y,
            algorithm,
            answer.as_mut_ptr(),
        )
        .result()
        .is_ok()
            && answer.assume_init().workspaceSize <= WORKSPACE_BYTES
    }
}

/// Keeps the GPU busy for a while, with whichever candidate runs.
fn warm(call: &Call<'_>, candidates: &[Candidate]) {
    let begun = Instant::now();
    while begun.elapsed() < WARMING && candidates.iter().any(|candidate| time(call, &candidate.algo).is_ok())
    {
    }
}

/// Times cublasLt's candidates.
fn choose(call: &Call<'_>, candidates: &[Candidate]) -> Result<Algorithm, GpuError> {
    let (mut best, mut refused) = (None::<(f32, Algorithm)>, None);
    for candidate in candidates {
        let time = match time(call, &candidate.algo) {
            Ok(time) => time,
            // It says nothing of the candidate, whose code the driver may have had no room for.
            Err(error) if error.is_out_of_memory() => return Err(error),
            // One that does not run after all is passed over.
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        if best.is_none_or(|(least, _)| is_faster(time, least)) {
            best = Some((time, candidate.algo));
        }
    }
    best.map(|(_, algorithm)| algorithm).ok_or_else(|| {
        refused.unwrap_or_else(|| {
            let none = CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
            GpuError::blas("cublasLt has no algorithm for a product")(none)
        })
    })
}

/// Whether a time differs from the least by more than noise; both in milliseconds.
fn is_faster(time: f32, least: f32) -> bool {
    time < least * MARGIN && time < least - LAUNCHES
}

/// What cublasLt proposes, best first by its own guess.
fn candidates(call: &Call<'_>, alignment: u32) -> Result<Vec<Candidate>, CublasError> {
    let preference = result::create_matmul_pref()?;
    let d = call.descriptors;
    let mut found = [const { MaybeUninit::<Candidate>::uninit() }; CANDIDATES];
    let mut count = 0;
    let set = |attribute, value: *const std::ffi::c_void, bytes| {
        // SAFETY: the preference is alive, and as many bytes are read as are there.
        #[allow(unsafe_code)]
        unsafe {
            result::set_matmul_pref_attribute(preference, attribute, value, bytes)
        }
    };
    let alignments = [
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ];
    let workspace = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    let asked = set(workspace, (&raw const WORKSPACE).cast(), size_of::<u64>()).and_then(|()| {
        alignments.iter().try_for_each(|a| set(*a, (&raw const alignment).cast(), size_of::<u32>()))
    });
    let asked = asked.and_then(|()| {
        // SAFETY: everything described is alive, and there is room for as many answers as are asked for.
        #[allow(unsafe_code)]
        unsafe {
            let (handle, first) = (call.gpu.blas.handle, found.as_mut_ptr().cast());
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                d.product,
                d.weight,
                d.x,
                d.y,
                d.y,
                preference,
                CANDIDATES as i32,
                first,
                &raw mut count,
            )
            .result()
        }
    });
    // SAFETY: made above, destroyed once.
    #[allow(unsafe_code)]
    let _ = unsafe { result::destroy_matmul_pref(preference) };
    asked?;
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: cublasLt has written the first `count` answers.
    #[allow(unsafe_code)]
    let found = found[..count].iter().map(|c| unsafe { c.assume_init() });
    Ok(found.filter(|c| c.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS).collect())
}

static WORKSPACE: u64 = WORKSPACE_BYTES as u64;

/// Milliseconds of a run.
fn time(call: &Call<'_>, algorithm: &Algorithm) -> Result<f32, GpuError> {
    let stream = call.gpu.device().cuda_stream();
    let event =
        || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(GpuError::driver("event"));
    let run = || {
        // SAFETY: the caller of `Gpu::gemm` vouches for the places; a product may be repeated.
        #[allow(unsafe_code)]
        unsafe { call.run(algorithm) }.map_err(GpuError::blas("a product"))
    };
    run()?;
    let start = event()?;
    for _ in 0..RUNS {
        run()?;
    }
    let end = event()?;
    end.synchronize().map_err(GpuError::driver("event"))?;
    Ok(start.elapsed_ms(&end).map_err(GpuError::driver("event"))? / RUNS as f32)
}
