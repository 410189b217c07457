use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::progress::CancelToken;
use wan_core::{Error, Loader, Result, WeightSet};
use wan_ops::{Embedding, HostSide, Linear, Residency, rms_norm};

use crate::Config;
use crate::attention::Attention;
use crate::ffn::FeedForward;
use crate::names::DIALECTS;
use crate::relative_bias::{RelativeBias, buckets};

/// Added to the mean square in every norm.
const EPS: f32 = 1e-6;

/// The UMT5 encoder. Its matrices and its embedding table stay where they are stored.
///
/// Source: Wan2.1 `wan/modules/t5.py`, `T5Encoder`. Golden: `umt5`.
#[derive(Debug, Clone)]
pub struct Umt5 {
    config: Config,
    token_embedding: Embedding,
    blocks: Vec<Block>,
    residency: Arc<Residency>,
    norm: Tensor,
    dtype: DType,
    device: Device,
    weight_bytes: u64,
}

impl Umt5 {
    /// Builds the encoder over `weights`, in any of the namings of [`DIALECTS`].
    ///
    /// - `config`: a JSON file of [`Config`]'s keys; absent: the file's header, then the tensors' shapes
    /// - `dtype`: of activations: f32, bf16 or f16
    ///
    /// Errors: [`wan_core::WeightsError`] naming every missing, unexpected or misshapen tensor;
    /// [`Error::Invalid`] for a configuration or dtype that cannot be.
    pub fn open(weights: &WeightSet, config: Option<&Path>, device: &Device, dtype: DType) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(Error::invalid("umt5 compute dtype", format!("{dtype:?}"), "f32, bf16 or f16"));
        }
        let (weights, _) = weights.canonical("umt5 encoder", DIALECTS)?;
        let config = Config::read(config, &weights)?;
        let weight_bytes = weights.iter().map(|stored| stored.bytes().len() as u64).sum();
        Loader::load(weights, device, |loader| {
            let blocks = loader.pp("blocks");
            Ok(Self {
                token_embedding: Embedding::load(
                    &loader.pp("token_embedding"),
                    config.vocab_size,
                    config.dim,
                )?,
                blocks: (0..config.num_layers)
                    .map(|n| Block::load(&blocks.pp(n), &config))
                    .collect::<Result<_>>()?,
                residency: Arc::new(Residency::on_demand()),
                norm: loader.tensor("norm.weight", &[config.dim])?,
                config,
                dtype,
                device: device.clone(),
                weight_bytes,
            })
        })
    }

    /// Puts the blocks where a GPU computes with them: onto the device all together, or, `streamed`, one after the
    /// other from their file at every use, so that it holds [`wan_ops::SWAP_SLOTS`] at a time. Without this each is
    /// uploaded at its first use and stays. Results do not depend on it. Nothing on the CPU.
    ///
    /// Errors: [`Error::OutOfMemory`] where the device has no room.
    pub fn place_blocks(&mut self, streamed: bool) -> Result<()> {
        self.residency = Arc::new(Residency::on_demand()); // the old places go first
        let layers = self.blocks.iter().map(|block| block.layers().cloned().collect()).collect();
        let swapped: Vec<usize> = if streamed { (0..self.blocks.len()).collect() } else { Vec::new() };
        let residency = Residency::place(&self.device, layers, &swapped, HostSide::Mapped, None)?;
        self.residency = Arc::new(residency);
        Ok(())
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of the weights as stored.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Encodes one prompt: `ids`, its L token ids with the end token and without padding, to `[L, dim]` f32.
    ///
    /// Errors: [`Error::Invalid`] without ids or for an id outside the vocabulary.
    pub fn encode(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.encode_all(&[ids], &CancelToken::new())?.remove(0))
    }

    /// Encodes several prompts in lockstep: every block runs for all of them before the next one, so that one that has
    /// to be brought is brought once. Bit for bit what [`Umt5::encode`] gives for each, in order.
    ///
    /// Errors: those of [`Umt5::encode`]; [`Error::Cancelled`], checked before each block.
    pub fn encode_all(&self, prompts: &[&[u32]], cancel: &CancelToken) -> Result<Vec<Tensor>> {
        if prompts.iter().any(|ids| ids.is_empty()) {
            return Err(Error::invalid("token ids", "none", "at least the end token"));
        }
        let positions: Vec<Vec<u32>> = prompts.iter().map(|ids| (0..ids.len() as u32).collect()).collect();
        let prompts = prompts.iter().zip(&positions).map(|(ids, positions)| (*ids, positions.as_slice()));
        self.forward(&prompts.collect::<Vec<_>>(), cancel)
    }

    /// Encodes a padded prompt: `input_ids` and `attention_mask` (1 token, 0 padding), both `[1, L]` i64, to
    /// `[1, L, dim]` f32, where positions outside the mask are zero.
    ///
    /// Padding is not computed. A masked key has no weight in any softmax, so leaving it out changes nothing as
    /// long as the other tokens keep their positions.
    ///
    /// Errors: [`Error::Shape`]; [`Error::Invalid`] for mask values other than 0 and 1 and for ids outside the
    /// vocabulary.
    pub fn encode_padded(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let length = match input_ids.dims() {
            [1, length] => *length,
            other => return Err(Error::shape("input_ids", other, "[1, L]")),
        };
        if attention_mask.dims() != [1, length] {
            return Err(Error::shape("attention_mask", attention_mask.dims(), format!("[1, {length}]")));
        }
        let values = |t: &Tensor| -> Result<Vec<i64>> {
            Ok(to_host(t)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?)
        };
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (position, (id, mask)) in values(input_ids)?.into_iter().zip(values(attention_mask)?).enumerate()
        {
            match mask {
                0 => continue,
                1 => positions.push(position as u32),
                other => return Err(Error::invalid("attention_mask", other, "0 or 1")),
            }
            let vocabulary = || format!("0 to {}", self.config.vocab_size - 1);
            ids.push(u32::try_from(id).map_err(|_| Error::invalid("token id", id, vocabulary()))?);
        }
        let dim = self.config.dim;
        let padded = Tensor::zeros((length, dim), DType::F32, &self.device)?;
        if ids.is_empty() {
            return Ok(padded.unsqueeze(0)?);
        }
        let rows = Tensor::from_slice(&positions, positions.len(), &self.device)?;
        let encoded = self.forward(&[(&ids, &positions)], &CancelToken::new())?.remove(0);
        Ok(padded.index_add(&rows, &encoded, 0)?.unsqueeze(0)?) // [1, L, dim]
    }

    /// The forward pass over prompts, each of token ids and their positions (rising): `[L, dim]` f32 each.
    fn forward(&self, prompts: &[(&[u32], &[u32])], cancel: &CancelToken) -> Result<Vec<Tensor>> {
        let mut streams = Vec::new();
        for (ids, positions) in prompts {
            let pairs = buckets(positions, self.config.num_buckets, &self.device)?; // [L * L]
            streams.push((self.token_embedding.forward(ids)?.to_dtype(self.dtype)?, pairs)); // [L, dim]
        }
        let mut pass = self.residency.pass()?;
        for (index, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            pass.enter(index)?;
            for (x, pairs) in &mut streams {
                *x = block.forward(x, pairs)?;
            }
            pass.leave()?;
        }
        let normed = |(x, _): (Tensor, Tensor)| Ok(rms_norm(&x, &self.norm, EPS)?.to_dtype(DType::F32)?);
        streams.into_iter().map(normed).collect()
    }
}

/// Source: Wan2.1 `wan/modules/t5.py`, `T5SelfAttention` (which is the whole block).
#[derive(Debug, Clone)]
struct Block {
    norm1: Tensor,
    attn: Attention,
    norm2: Tensor,
    ffn: FeedForward,
    pos_embedding: RelativeBias,
}

impl Block {
    fn load(loader: &Loader, config: &Config) -> Result<Self> {
        Ok(Self {
            norm1: loader.tensor("norm1.weight", &[config.dim])?,
            attn: Attention::load(&loader.pp("attn"), config)?,
            norm2: loader.tensor("norm2.weight", &[config.dim])?,
            ffn: FeedForward::load(&loader.pp("ffn"), config)?,
            pos_embedding: RelativeBias::load(
                &loader.pp("pos_embedding"),
                config.num_buckets,
                config.num_heads,
            )?,
        })
    }

    fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.attn.layers().into_iter().chain(self.ffn.layers())
    }

    /// `x`: `[L, dim]`, `pairs`: `[L * L]` buckets; returns `[L, dim]` in x's dtype.
    fn forward(&self, x: &Tensor, pairs: &Tensor) -> Result<Tensor> {
        let bias = self.pos_embedding.forward(pairs, x.dim(0)?)?; // [heads, L, L]
        let attended = self.attn.forward(&rms_norm(x, &self.norm1, EPS)?, &bias)?;
        drop(bias); // the largest activation; the feed-forward needs its room
        let x = bounded((x + attended)?)?; // [L, dim]
        let fed = self.ffn.forward(&rms_norm(&x, &self.norm2, EPS)?)?;
        bounded((x + fed)?)
    }
}

/// In f16 the residual stream can overflow; then all of it is clamped to a little inside the range, as the
/// published model was used (Wan2.1 `wan/modules/t5.py`, `fp16_clamp`). Other dtypes pass.
fn bounded(x: Tensor) -> Result<Tensor> {
    const LIMIT: f64 = 65504.0 - 1000.0;
    if x.dtype() != DType::F16 {
        return Ok(x);
    }
    let largest = x.abs()?.max(D::Minus1)?.flatten_all()?.max(0)?.to_dtype(DType::F32)?;
    let largest = to_host(&largest)?.to_scalar::<f32>()?;
    if largest.is_infinite() { Ok(x.clamp(-LIMIT, LIMIT)?) } else { Ok(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_f16_is_clamped_and_only_on_overflow() {
        let values = |dtype, v: &[f32]| {
            let x = Tensor::new(v, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            bounded(x).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(DType::F16, &[65504., -3.]), [65504., -3.]);
        assert_eq!(values(DType::F16, &[1e6, 65504., -1e6, 2.]), [64512., 64512., -64512., 2.]);
        assert_eq!(values(DType::F32, &[f32::INFINITY, 1e6]), [f32::INFINITY, 1e6]);
    }
}
