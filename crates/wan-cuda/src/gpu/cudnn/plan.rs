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

    /// The most usual attention: if cuDNN has no engine for this, something that it needs is missing.
    pub fn usual() -> Self {
        let shape = AttentionShape { queries: 128, keys: 128, heads: 1, head_dim: 128 };
        Self { float: Float::Bf16, shape, strides: [128; 3] }
    }

    /// Tokens of q, k, v and y, and distances between them.
    fn tensors(&self) -> [(usize, usize); 4] {
        let AttentionShape { queries, keys, heads, head_dim } = self.shape;
        let [q, k, v] = self.strides;
        [(queries, q), (keys, k), (keys, v), (queries, heads * head_dim)]
    }
}

/// Which GPU a plan is made for.
pub(super) enum Target<'a> {
    /// The handle's; such a plan can be executed.
    Handle(&'a Handle),
    /// One with these properties, which need not be here.
    Properties(&'a Descriptor),
}

impl Target<'_> {
    /// Properties as cuDNN writes them down, a JSON object.
    pub fn described(library: &Arc<Library>, properties: &str) -> Result<Descriptor, CudnnError> {
        Descriptor::with(
            library,
            Kind::DeviceProperties,
            "properties of a GPU",
            &[(2702, Value::Text(properties))],
        )
    }

    /// The attribute that tells a graph, heuristics or a plan of the target, of those for a handle and for properties.
    fn attribute(&self, handle: Option<c_int>, properties: Option<c_int>) -> Option<(c_int, Value<'_>)> {
        match self {
            Self::Handle(it) => handle.map(|attribute| (attribute, Value::Handle(it.raw()))),
            Self::Properties(it) => properties.map(|attribute| (attribute, Value::Descriptor(it))),
        }
    }
}

/// A compiled attention. Descriptors keep what they refer to alive themselves.
pub(super) struct Plan {
    plan: Descriptor,
    workspace_bytes: usize,
}

impl Plan {
    /// Errors: [`CudnnError::Engine`] where cuDNN has no engine; its words about the best one if it compiles none.
    pub fn make(library: &Arc<Library>, target: &Target<'_>, key: PlanKey) -> Result<Self, CudnnError> {
        let mut refused = None;
        for config in engines(library, target, key)? {
            let config = [(401, Value::Descriptor(&config))];
            let attributes = told(target.attribute(Some(400), Some(407)), &config);
            match Descriptor::with(library, Kind::Plan, "attention plan", &attributes) {
                Ok(plan) => {
                    let bytes = plan.int("attention workspace", 402)?;
                    return Ok(Self { plan, workspace_bytes: usize::try_from(bytes).unwrap_or(0) });
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| no_engine(key.shape, "it offers none")))
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
        let pack = arguments(library, places, &scale, workspace)?;
        // SAFETY: live descriptors of this library; the caller vouches for the memory.
        let status = unsafe { (library.execute)(handle.raw(), self.plan.raw(), pack.raw()) };
        library.check("attention", status)
    }
}

/// Configurations of cuDNN's engines for an attention, the best first; none for what it does not have.
fn engines(library: &Arc<Library>, target: &Target<'_>, key: PlanKey) -> Result<Vec<Descriptor>, CudnnError> {
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
    let attributes = told(target.attribute(Some(800), None), &[(801, Value::Descriptor(&attention))]);
    let graph = Descriptor::with(library, Kind::Graph, "attention graph", &attributes)?;
    let asked = [(201, Value::Descriptor(&graph)), (200, Value::HeuristicMode(MODE_A))];
    let attributes = told(target.attribute(None, Some(204)), &asked);
    let heuristics = Descriptor::with(library, Kind::Heuristics, "attention heuristics", &attributes)?;
    let mut configs = (0..CANDIDATES)
        .map(|_| Descriptor::new(library, Kind::EngineConfig))
        .collect::<Result<Vec<_>, _>>()?;
    let found = heuristics.descriptors("attention engines", 202, &configs)?;
    configs.truncate(found);
    Ok(configs)
}

fn told<'a>(target: Option<(c_int, Value<'a>)>, rest: &[(c_int, Value<'a>)]) -> Vec<(c_int, Value<'a>)> {
    target.into_iter().chain(rest.iter().copied()).collect()
}

/// What a plan is executed on; `scale` is read when it is.
pub(super) fn arguments(
    library: &Arc<Library>,
    places: &AttentionPlaces,
    scale: &f32,
    workspace: DevPtr,
) -> Result<Descriptor, CudnnError> {
    let AttentionPlaces { q, k, v, y, .. } = *places;
    let device = |at: DevPtr| at.0 as *mut c_void;
    let by_value = std::ptr::from_ref(scale).cast_mut().cast();
    let pointers = [device(q.at), device(k.at), device(v.at), device(y), by_value];
    Descriptor::with(
        library,
        Kind::VariantPack,
        "attention arguments",
        &[
            (1000, Value::Ints(&UIDS)),
            (1001, Value::Pointers(&pointers)),
            (1003, Value::Pointers(&[device(workspace)])),
        ],
    )
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
