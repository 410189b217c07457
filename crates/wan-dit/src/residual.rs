use candle_core::{DType, Tensor};
use wan_core::Result;
use wan_ops::{Affine, layer_norm, residual_layer_norm};

/// The residual stream between the parts of the blocks: `[L, dim]` f32, and what the last part still has to add.
///
/// Each addition is put off until the next norm, so that both are one pass over the stream.
#[derive(Debug, Clone)]
pub(crate) struct ResidualStream {
    x: Tensor,
    pending: Option<(Tensor, Option<Tensor>)>,
}

impl ResidualStream {
    /// A stream that begins with the tokens `x`, `[L, dim]` f32.
    pub(crate) fn new(x: Tensor) -> Self {
        Self { x, pending: None }
    }

    /// Adds `gate y`, or `y`; takes effect with the next [`ResidualStream::normalise`].
    pub(crate) fn add(&mut self, y: Tensor, gate: Option<Tensor>) {
        debug_assert!(self.pending.is_none(), "a norm comes between two additions");
        self.pending = Some((y, gate));
    }

    /// Layer norm of the stream, `[L, dim]` in `dtype`.
    pub(crate) fn normalise(&mut self, eps: f32, affine: Affine<'_>, dtype: DType) -> Result<Tensor> {
        match self.pending.take() {
            None => Ok(layer_norm(&self.x, eps, affine)?.to_dtype(dtype)?),
            Some((y, gate)) => {
                let (x, normed) = residual_layer_norm(&self.x, &y, gate.as_ref(), eps, affine, dtype)?;
                self.x = x;
                Ok(normed)
            }
        }
    }
}
