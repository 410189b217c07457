use candle_core::Tensor;
use wan_core::{Error, Result};
use wan_ops::{Affine, RowFormat, Rows, Sums, gated_residual, layer_norm_rows, residual_layer_norm};

/// The residual stream between the parts of the blocks: `[L, dim]` f32, and what the last part still has to add.
///
/// Each addition is put off until the next norm, so that both are one pass over the stream.
#[derive(Debug, Clone)]
pub(crate) struct ResidualStream {
    x: Tensor,
    pending: Option<(Sums, Option<Tensor>)>,
}

impl ResidualStream {
    /// A stream that begins with the tokens `x`, `[L, dim]` f32.
    pub(crate) fn new(x: Tensor) -> Self {
        Self { x, pending: None }
    }

    /// Adds `gate y`, or `y`; takes effect with the next [`ResidualStream::normalise`].
    pub(crate) fn add(&mut self, y: Sums, gate: Option<Tensor>) {
        debug_assert!(self.pending.is_none(), "a norm comes between two additions");
        self.pending = Some((y, gate));
    }

    /// The stream with everything that was added, `[L, dim]` f32.
    pub(crate) fn value(&self) -> Result<Tensor> {
        match &self.pending {
            None => Ok(self.x.clone()),
            Some((y, gate)) => gated_residual(&self.x, y, gate.as_ref()),
        }
    }

    /// The `count` tokens from `start` on.
    pub(crate) fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        let pending =
            self.pending.as_ref().map(|(y, gate)| Ok::<_, Error>((y.narrow(start, count)?, gate.clone())));
        Ok(Self { x: self.x.narrow(0, start, count)?, pending: pending.transpose()? })
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> Result<usize> {
        Ok(self.x.dim(0)?)
    }

    /// Layer norm of the stream, as rows `[L, dim]` of `format`.
    pub(crate) fn normalise(&mut self, eps: f32, affine: Affine<'_>, format: RowFormat) -> Result<Rows> {
        match self.pending.take() {
            None => layer_norm_rows(&self.x, eps, affine, format),
            Some((y, gate)) => {
                let (x, normed) = residual_layer_norm(&self.x, y, gate.as_ref(), eps, affine, format)?;
                self.x = x;
                Ok(normed)
            }
        }
    }
}
