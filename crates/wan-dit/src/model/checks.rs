//! What a forward is given, checked before anything is computed.

use candle_core::{DType, Tensor};
use wan_core::geometry::LatentSize;
use wan_core::{Error, Result};

use super::{Dit, DitInput};
use crate::config::ModelType;
use crate::context::Context;

impl Dit {
    /// Checks one step's input; returns the latent grid and the input channels `[1, in_dim, F, h, w]`.
    pub(super) fn input(&self, input: &DitInput<'_>) -> Result<([usize; 3], Tensor)> {
        let (latents, channels) = (input.latents, self.config.out_dim);
        let grid = match *latents.dims() {
            [1, c, f, h, w]
                if c == channels && f > 0 && h > 0 && w > 0 && h.is_multiple_of(2) && w.is_multiple_of(2) =>
            {
                [f, h, w]
            }
            _ => {
                let expected = format!("[1, {channels}, F, h, w] with h and w even");
                return Err(Error::shape("latents", latents.dims(), expected));
            }
        };
        let [f, h, w] = grid;
        if input.rope.latent() != (LatentSize { frames: f, height: h, width: w }) {
            let made = input.rope.latent();
            let found = format!("made for {} x {} x {}", made.frames, made.height, made.width);
            return Err(Error::invalid("rope table", found, format!("the latents' {f} x {h} x {w}")));
        }
        if !input.timestep.is_finite() {
            return Err(Error::invalid("timestep", input.timestep, "a number of 0 to 1000"));
        }
        let ready = |t: &Tensor| -> Result<Tensor> { Ok(t.to_device(&self.device)?.to_dtype(DType::F32)?) };
        let condition_dim = self.config.condition_dim();
        let shape = [1, condition_dim, f, h, w];
        match (self.config.model_type, input.condition) {
            (ModelType::T2v, None) => Ok((grid, ready(latents)?)),
            (ModelType::I2v, Some(condition)) if condition.dims() == shape => {
                Ok((grid, Tensor::cat(&[ready(latents)?, ready(condition)?], 1)?))
            }
            (ModelType::I2v, Some(condition)) => {
                let expected = format!("{shape:?}, the latents' size with {condition_dim} channels");
                Err(Error::shape("condition", condition.dims(), expected))
            }
            (ModelType::I2v, None) => {
                Err(Error::invalid("condition", "none", format!("shape {shape:?} for an i2v model")))
            }
            (ModelType::T2v, Some(condition)) => {
                let found = format!("shape {:?}", condition.dims());
                Err(Error::invalid("condition", found, "none for a t2v model"))
            }
        }
    }

    /// Whether all contexts were made by a model like this one.
    pub(super) fn check_contexts(&self, contexts: &[&Context]) -> Result<()> {
        if contexts.is_empty() {
            return Err(Error::invalid("contexts", "none", "at least one"));
        }
        let expected = [self.config.text_len, self.config.dim];
        let fits = |c: &Context| {
            c.text.dims() == expected
                && c.text.dtype() == self.dtype
                && c.image.is_some() == self.image_embedding.is_some()
                && c.keys.as_ref().is_none_or(|keys| keys.len() == self.blocks.len())
        };
        match contexts.iter().find(|c| !fits(c)) {
            Some(context) => {
                let found = format!("one of another model, with text {:?}", context.text.dims());
                Err(Error::invalid("context", found, format!("one of this model, with text {expected:?}")))
            }
            None => Ok(()),
        }
    }
}
