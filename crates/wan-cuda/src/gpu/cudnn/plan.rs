use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::descriptor::{Descriptor, Kind, Value};
use super::library::{Handle, Library};
use super::{CudnnError, no_engine};
use crate::ops::{AttentionPlaces, AttentionShape};
use crate::{DevPtr, Float};

/// Names of the tensors in a graph, in the order of [`PlanKey::tensors`]; the scale comes last.
const UIDS: [i64; 5] = [1, 2, 3, 4, 5];

/// `cudnnDataType_t`.
const DATA_FLOAT: c_int = 0;
const DATA_HALF: c_int = 2;
const DATA_BFLOAT16: c_int = 9;

/// `CUDNN_HEUR_MODE_A`.
const MODE_A: c_int = 3;

/// Configurations that are tried.
const CANDIDATES: usize = 8;

/// Alignment that tensors are promised to have.
const ALIGNMENT: u64 = 16;

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    float: Float,
    shape: AttentionShape,
    /// Distances between the tokens of q, k and v.
    strides: [usize; 3],
}

impl PlanKey {
    /// `None` for what cuDNN's attention does not take.
    pub fn new(float: Float, shape: AttentionShape, places: &AttentionPlaces) -> Option<Self> {
        let AttentionPlaces { q, k, v, y, add } = *places;
        let aligned = [q.at, k.at, v.at, y].iter().all(|at| at.is_aligned(ALIGNMENT));
        let pieces = [q, k, v].iter().all(|rows| rows.stride.is_multiple_of(8));
        let fits = float != Float::F32 && shape.head_dim.is_multiple_of(8) && shape.head_dim <= 256;
        (aligned && pieces && fits && !add).then_some(Self {
            float,
            shape,
            strides: [q.stride, k.stride, v.stride],
        })
    }

    /// Tokens of q, k, v and y, and distances between them.
    fn tensors(&self) -> [(usize, usize); 4] {
        let AttentionShape { queries, keys, heads, head_dim } = self.shape;
        let [q, k, v] = self.strides;
        [(queries, q), (keys, k), (keys, v), (queries, heads * head_dim)]
    }
}

/// A compiled attention. Descriptors keep what they refer to alive themselves.
pub(super) struct Plan {
    plan: Descriptor,
    workspace_bytes: usize,
}

impl Plan {
    pub fn make(library: &Arc<Library>, handle: &Handle, key: PlanKey) -> Result<Self, CudnnError> {
        let [q, k, v, y] = key.tensors();
        let tensor = |index: usize, (tokens, stride)| tensor(library, key, UIDS[index], tokens, stride);
        let (q, k, v, y) = (tensor(0, q)?, tensor(1, k)?, tensor(2, v)?, tensor(3, y)?);
        let scale = scale(library)?;
        let attention = Descriptor::with(
            library,
            Kind::Attention,
            "attention operation",
            &[
                (2800, Value::Descriptor(&q)),
                (2801, Value::Descriptor(&k)),
                (2802, Value::Descriptor(&v)),
                (2803, Value::Descriptor(&y)),
                (2805, Value::Descriptor(&scale)),
            ],
        )?;
        let graph = Descriptor::with(
            library,
            Kind::Graph,
            "attention graph",
            &[(800, Value::Handle(handle.raw())), (801, Value::Descriptor(&attention))],
        )?;
        let heuristics = Descriptor::with(
            library,
            Kind::Heuristics,
            "attention heuristics",
            &[(201, Value::Descriptor(&graph)), (200, Value::HeuristicMode(MODE_A))],
        )?;
        let configs = (0..CANDIDATES)
            .map(|_| Descriptor::new(library, Kind::EngineConfig))
            .collect::<Result<Vec<_>, _>>()?;
        let found = heuristics.descriptors("attention engines", 202, &configs)?;
        let plan = configs[..found].iter().find_map(|config| {
            let attributes = [(400, Value::Handle(handle.raw())), (401, Value::Descriptor(config))];
            Descriptor::with(library, Kind::Plan, "attention plan", &attributes).ok()
        });
        let plan = plan.ok_or_else(|| no_engine(key.shape))?;
        let workspace_bytes = plan.int("attention workspace", 402)?;
        Ok(Self { plan, workspace_bytes: usize::try_from(workspace_bytes).unwrap_or(0) })
    }

    pub fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    /// Puts the attention on the handle's stream.
    ///
    /// # Safety
    /// The places must be those that the plan's key was made from, and valid as for a launch; `workspace` must have
    /// [`Plan::workspace_bytes`].
    #[allow(unsafe_code)]
    pub unsafe fn execute(
        &self,
        library: &Arc<Library>,
        handle: &Handle,
        places: &AttentionPlaces,
        scale: f32,
        workspace: DevPtr,
    ) -> Result<(), CudnnError> {
        let AttentionPlaces { q, k, v, y, .. } = *places;
        let device = |at: DevPtr| at.0 as *mut c_void;
        let by_value = (&raw const scale).cast_mut().cast();
        let pointers = [device(q.at), device(k.at), device(v.at), device(y), by_value];
        let pack = Descriptor::with(
            library,
            Kind::VariantPack,
            "attention arguments",
            &[
                (1000, Value::Ints(&UIDS)),
                (1001, Value::Pointers(&pointers)),
                (1003, Value::Pointers(&[device(workspace)])),
            ],
        )?;
        // SAFETY: live descriptors of this library; the caller vouches for the memory.
        let status = unsafe { (library.execute)(handle.raw(), self.plan.raw(), pack.raw()) };
        library.check("attention", status)
    }
}

/// `[1, heads, tokens, head_dim]` with the tokens at a distance.
fn tensor(
    library: &Arc<Library>,
    key: PlanKey,
    uid: i64,
    tokens: usize,
    stride: usize,
) -> Result<Descriptor, CudnnError> {
    let AttentionShape { heads, head_dim, .. } = key.shape;
    let dims = [1, heads, tokens, head_dim].map(|n| n as i64);
    let strides = [tokens * stride, head_dim, stride, 1].map(|n| n as i64);
    let dtype = if key.float == Float::Bf16 { DATA_BFLOAT16 } else { DATA_HALF };
    Descriptor::with(library, Kind::Tensor, "attention tensor", &attributes(dtype, &dims, &strides, &[uid]))
}

/// The scale: one f32 on the host.
fn scale(library: &Arc<Library>) -> Result<Descriptor, CudnnError> {
    let mut attributes = attributes(DATA_FLOAT, &[1; 4], &[1; 4], &UIDS[4..]).to_vec();
    attributes.push((908, Value::Flag(true)));
    Descriptor::with(library, Kind::Tensor, "attention scale", &attributes)
}

fn attributes<'a>(
    dtype: c_int,
    dims: &'a [i64; 4],
    strides: &'a [i64; 4],
    uid: &'a [i64],
) -> [(c_int, Value<'a>); 5] {
    [
        (901, Value::DataType(dtype)),
        (902, Value::Ints(dims)),
        (903, Value::Ints(strides)),
        (906, Value::Ints(uid)),
        (900, Value::Ints(&[ALIGNMENT as i64])),
    ]
}
