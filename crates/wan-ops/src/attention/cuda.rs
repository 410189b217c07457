use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};
use wan_cuda::gpu::{Cudnn, CudnnError, Gpu, address};
use wan_cuda::ops::{
    self, AttentionPlaces, AttentionShape, KeySource, LARGEST_HEAD, Rotation, Sage, SageKernel, SagePlaces,
    SageQueries, TokenRows,
};
use wan_cuda::{DevPtr, Float};

use super::{Attention, QkNorm};
use crate::AttentionChoice;
use crate::Sums;
use crate::cuda::{Input, Output, Side, check_row, float, launch, optional, with_tensor};
use crate::sums::cuda::Pending;

/// Queries times keys from which on cuDNN's plan, made once for each shape, is soon paid for.
const WORTH_A_PLAN: usize = 1 << 20;

/// q, k or v as the kernels read it: in place where the heads of a token lie behind each other, else gathered.
struct Tokens<'a> {
    rows: TokenRows,
    _gathered: Option<Input<'a>>,
}

impl<'a> Tokens<'a> {
    fn new(storage: &'a CudaStorage, layout: &Layout, float: Float) -> Result<Self> {
        let (_, heads, d) = layout.shape().dims3()?;
        let [token, head, channel] = layout.stride() else {
            bail!("attention: found {} axes, expected tokens, heads and channels", layout.stride().len())
        };
        if (d <= 1 || *channel == 1) && (heads <= 1 || *head == d) && *token >= heads * d {
            let at = address(storage).offset(layout.start_offset() * float.size());
            return Ok(Self { rows: TokenRows { at, stride: *token }, _gathered: None });
        }
        let input = Input::new(storage, layout)?;
        Ok(Self { rows: TokenRows { at: input.ptr(), stride: heads * d }, _gathered: Some(input) })
    }
}

/// One attention and what is asked of it.
struct Job<'a> {
    gpu: &'a Gpu,
    float: Float,
    shape: AttentionShape,
    places: AttentionPlaces,
    scale: f32,
}

impl Job<'_> {
    /// By the user's choice where it has a kernel for this format and shape, else by the fastest exact one.
    fn run(&self, choice: AttentionChoice, bias: DevPtr) -> Result<()> {
        let device = self.gpu.device();
        if bias != DevPtr::NULL {
            return self.general(bias);
        }
        let done = match choice {
            AttentionChoice::Exact => false,
            AttentionChoice::Sage => self.sage()?,
            AttentionChoice::Cudnn => self.cudnn()?,
            // Where it is the faster one, and only where the time to prepare it is no matter.
            AttentionChoice::Auto => {
                let work = self.shape.queries * self.shape.keys;
                cudnn_by_default(self.gpu)
                    && work >= WORTH_A_PLAN
                    && self.cudnn().or_else(|error| error.is_absence().then_some(false).ok_or(error))?
            }
        };
        if done || self.sm90(None)? {
            return Ok(());
        }
        match ops::attention_mma(self.float, self.shape, &self.places, self.scale) {
            Some(kernel) => launch(device, &kernel),
            None => self.general(bias),
        }
    }

    /// cuDNN's attention; `false` where it has no engine for this format and shape.
    fn cudnn(&self) -> std::result::Result<bool, CudnnError> {
        let cudnn = Cudnn::of(self.gpu)?;
        // SAFETY: as in `cuda::launch`.
        #[allow(unsafe_code)]
        let computed = unsafe { cudnn.attend(self.gpu, self.float, self.shape, &self.places, self.scale) };
        match computed {
            Ok(()) => Ok(true),
            Err(CudnnError::Engine { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// 8-bit attention; `false` where it has no kernel.
    fn sage(&self) -> Result<bool> {
        match SagePlaces::of(&self.places) {
            Some(places) => sage(self.gpu, self.float, self.shape, &places, self.scale),
            None => Ok(false),
        }
    }

    /// The exact kernel of compute capability 9.0, of another source as well; `false` where this GPU is another or the
    /// kernel has not this format and shape.
    fn sm90(&self, second: Option<&KeySource>) -> Result<bool> {
        if !self.gpu.has("attention_sm90_bf16") {
            return Ok(false);
        }
        let Some(bytes) = ops::attention_sm90_scratch(self.float, self.shape, second) else {
            return Ok(false);
        };
        let (scratch, places) = (self.gpu.scratch(bytes)?, &self.places);
        let launches = ops::attention_sm90(self.float, self.shape, places, second, self.scale, scratch.ptr());
        for kernel in launches.iter().flatten() {
            launch(self.gpu.device(), kernel)?;
        }
        Ok(launches.is_some())
    }

    fn general(&self, bias: DevPtr) -> Result<()> {
        match ops::attention(self.float, self.shape, &self.places, self.scale, bias) {
            Some(kernel) => launch(self.gpu.device(), &kernel),
            None => bail!(
                "attention: found heads of {} channels on cuda, expected at most {LARGEST_HEAD}",
                self.shape.head_dim
            ),
        }
    }
}

/// Whether cuDNN's attention is faster than the exact kernel.
pub(crate) fn cudnn_by_default(gpu: &Gpu) -> bool {
    gpu.capability() >= (9, 0)
}

/// 8-bit attention; `false` where it has no kernel for this format, shape and place.
fn sage(gpu: &Gpu, float: Float, shape: AttentionShape, places: &SagePlaces, scale: f32) -> Result<bool> {
    let Some(sage) = Sage::new(shape, sage_kernel(gpu)) else { return Ok(false) };
    let scratch = gpu.scratch(sage.scratch_bytes())?;
    let launches = sage.launches(float, places, scale, scratch.ptr());
    for kernel in launches.iter().flatten() {
        launch(gpu.device(), kernel)?;
    }
    Ok(launches.is_some())
}

/// 8-bit attention of products, of which the keys are finished; `None` where it has no kernel.
pub(super) fn sage_of_products(
    q: &Sums,
    k: &Tensor,
    v: &Sums,
    norm: QkNorm<'_>,
    scale: f32,
) -> Result<Option<Tensor>> {
    const OP: &str = "self_attention_of_products";
    let Device::Cuda(device) = q.bare().device() else { return Ok(None) };
    let (tokens, heads, head_dim) = k.dims3()?;
    let shape = AttentionShape { queries: tokens, keys: tokens, heads, head_dim };
    check_row(OP, heads * head_dim)?;
    let (gpu, format) = (Gpu::of(device)?, float(OP, k.dtype())?);
    let (weight, rope) = (Side::new(OP, norm.query)?, Side::new(OP, norm.rope)?);
    let (q_pending, v_pending) = (Pending::new(OP, q)?, Pending::new(OP, v)?);
    let output = Output::new(device, k.shape(), k.dtype())?;
    let rows = |input: &Input<'_>| TokenRows { at: input.ptr(), stride: heads * head_dim };
    let computed = with_tensor(OP, q.bare(), |q| {
        with_tensor(OP, k, |k| {
            with_tensor(OP, v.bare(), |v| {
                let values = v_pending.of(format, v.ptr());
                let places = SagePlaces {
                    q: SageQueries::Product {
                        sums: q_pending.of(format, q.ptr()),
                        weight: weight.ptr(),
                        rotation: Rotation { table: rope.ptr(), head: head_dim },
                        eps: norm.eps,
                    },
                    k: rows(k),
                    v: rows(v),
                    v_row_scale: values.row_scale,
                    v_bias: values.bias,
                    y: output.ptr(),
                };
                sage(&gpu, format, shape, &places, scale)
            })
        })
    })?;
    Ok(computed.then(|| output.into_tensor()))
}

/// The fastest 8-bit kernel that this GPU's images have.
pub(crate) fn sage_kernel(gpu: &Gpu) -> SageKernel {
    if gpu.has("attention_sage_sm90_bf16") {
        SageKernel::Hopper
    } else if gpu.has("attention_sage_fp8_bf16") {
        SageKernel::Fp8
    } else {
        SageKernel::Half
    }
}

pub(super) fn forward(
    op: &Attention<'_>,
    (q, q_layout): (&CudaStorage, &Layout),
    (k, k_layout): (&CudaStorage, &Layout),
    (v, v_layout): (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let format = float(op.name(), q.dtype())?;
    let output = Output::new(q.device(), q_layout.shape(), q.dtype())?;
    let bias = Side::option(op.name(), op.bias)?;
    let sources = [((k, k_layout), (v, v_layout))];
    attend(op, format, (q, q_layout), &sources, optional(bias.as_ref()), output.ptr())?;
    Ok(output.finish())
}

type Stored<'a> = (&'a CudaStorage, &'a Layout);

/// `y` becomes the sum of the attentions of `q` to each of `sources`, two of which have no bias.
fn attend(
    op: &Attention<'_>,
    float: Float,
    q: Stored<'_>,
    sources: &[(Stored<'_>, Stored<'_>)],
    bias: DevPtr,
    y: DevPtr,
) -> Result<()> {
    let gpu = Gpu::of(q.0.device())?;
    let (queries, heads, head_dim) = q.1.shape().dims3()?;
    if queries == 0 {
        return Ok(());
    }
    let q = Tokens::new(q.0, q.1, float)?;
    let tokens = sources
        .iter()
        .map(|(k, v)| Ok((Tokens::new(k.0, k.1, float)?, Tokens::new(v.0, v.1, float)?, k.1.dims()[0])));
    let tokens: Vec<_> = tokens.collect::<Result<_>>()?;
    let sources: Vec<_> =
        tokens.iter().map(|(k, v, keys)| KeySource { k: k.rows, v: v.rows, keys: *keys }).collect();
    let job = |source: &KeySource, add| {
        let KeySource { k, v, keys } = *source;
        let shape = AttentionShape { queries, keys, heads, head_dim };
        let places = AttentionPlaces { q: q.rows, k, v, y, add };
        Job { gpu: &gpu, float, shape, places, scale: op.scale }
    };
    if let [first, second] = &sources[..]
        && job(first, false).sm90(Some(second))?
    {
        return Ok(());
    }
    for (i, source) in sources.iter().enumerate() {
        job(source, i > 0).run(op.choice, bias)?;
    }
    Ok(())
}

/// The sum of two attentions of one query, the second added where the first is written.
pub(super) fn attention_sum(
    op: &Attention<'_>,
    q: &Tensor,
    first: (&Tensor, &Tensor),
    second: (&Tensor, &Tensor),
) -> Result<Tensor> {
    let name = op.name();
    let format = float(name, q.dtype())?;
    let parts = [q, first.0, first.1, second.0, second.1].map(Tensor::storage_and_layout);
    let stored = parts.each_ref().map(|(storage, layout)| match &**storage {
        Storage::Cuda(storage) => Ok((storage, *layout)),
        _ => bail!("{name}: found an argument on another device, expected cuda like the query"),
    });
    let [q_at, k1, v1, k2, v2] = stored;
    let q_at = q_at?;
    let output = Output::new(q_at.0.device(), q.shape(), q.dtype())?;
    attend(op, format, q_at, &[(k1?, v1?), (k2?, v2?)], DevPtr::NULL, output.ptr())?;
    Ok(output.into_tensor())
}
