//! A forward in which what the blocks added in an earlier one stands in for the blocks, and the signal by which callers
//! judge how far apart two steps are.
//!
//! Source: "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model" (TeaCache, arXiv 2411.19108).

use candle_core::Tensor;
use wan_core::device::to_host;
use wan_core::progress::CancelToken;
use wan_core::{Error, Result};

use super::{Dit, DitInput};
use crate::context::Context;
use crate::ffn::ROWS;
use crate::residual::ResidualStream;

/// What all blocks together added to the residual stream of each context: `[L, dim]` each, in the model's dtype.
#[derive(Debug, Clone)]
pub struct BlockResiduals(Vec<Tensor>);

impl BlockResiduals {
    /// How many contexts they are of.
    pub fn contexts(&self) -> usize {
        self.0.len()
    }
}

/// Which embedding of the time tells two steps apart. Both are f32, and neither depends on latents or prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSignal {
    /// The time embedding `e`, `[dim]`, which modulates the head.
    Embedding,
    /// Its projection `e0`, `[6, dim]`, which modulates the blocks.
    Projection,
}

impl Dit {
    /// The signal of a timestep in [0, 1000], flat, on the host.
    ///
    /// Errors: those of the layers.
    pub fn time_signal(&self, timestep: f32, signal: TimeSignal) -> Result<Vec<f32>> {
        let values = match signal {
            TimeSignal::Embedding => self.time_embedding.embedding(timestep)?,
            TimeSignal::Projection => self.time_embedding.forward(timestep)?.projection,
        };
        Ok(to_host(&values)?.flatten_all()?.to_vec1()?)
    }

    /// [`Dit::forward_lockstep`], bit for bit, and what the blocks added for each context.
    ///
    /// Errors: those of [`Dit::forward_lockstep`].
    pub fn forward_lockstep_keeping(
        &self,
        input: &DitInput<'_>,
        contexts: &[&Context],
        cancel: &CancelToken,
    ) -> Result<(Vec<Tensor>, BlockResiduals)> {
        let (grid, x) = self.input(input)?;
        let time = self.time_embedding.forward(input.timestep)?;
        let streams = self.run_blocks(&x, input.rope, &time, contexts, cancel, &mut |_| Ok(()))?;
        // Made again: kept beside the streams they would be one more of the largest tensors while the blocks run.
        let tokens = self.patch_embedding.forward(&x)?;
        let residuals = streams.iter().map(|stream| self.residual(stream, &tokens)).collect::<Result<_>>()?;
        drop(tokens);
        let velocities = streams.into_iter().map(|stream| self.velocity(&stream, &time, grid));
        Ok((velocities.collect::<Result<_>>()?, BlockResiduals(residuals)))
    }

    /// The velocities of the first `contexts` contexts of an earlier forward, as they are if the blocks add again what
    /// they added there; no block runs.
    ///
    /// - returns one `[1, 16, F, h, w]` f32 per context, in order
    ///
    /// Errors: those of [`Dit::forward`]; [`Error::Invalid`] for residuals of fewer contexts or of another size.
    pub fn forward_reusing(
        &self,
        input: &DitInput<'_>,
        residuals: &BlockResiduals,
        contexts: usize,
    ) -> Result<Vec<Tensor>> {
        let (grid, x) = self.input(input)?;
        if contexts > residuals.contexts() {
            return Err(Error::invalid(
                "residuals",
                residuals.contexts(),
                format!("those of {contexts} contexts"),
            ));
        }
        let tokens = self.patch_embedding.forward(&x)?;
        let time = self.time_embedding.forward(input.timestep)?;
        let velocity = |residual: &Tensor| {
            if residual.dims() != tokens.dims() {
                return Err(Error::shape("residual", residual.dims(), format!("{:?}", tokens.dims())));
            }
            let mut stream = ResidualStream::new(tokens.clone());
            stream.add(residual.into(), None);
            self.velocity(&stream, &time, grid)
        };
        residuals.0.iter().take(contexts).map(velocity).collect()
    }

    /// What was added to `tokens` `[L, dim]` on the way to `stream`; some rows at a time, as the head.
    fn residual(&self, stream: &ResidualStream, tokens: &Tensor) -> Result<Tensor> {
        let count = stream.tokens()?;
        let parts = (0..count).step_by(ROWS).map(|start| {
            let rows = ROWS.min(count - start);
            let added = (stream.narrow(start, rows)?.value()? - tokens.narrow(0, start, rows)?)?;
            Ok(added.to_dtype(self.dtype)?)
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }
}
