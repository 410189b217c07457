use candle_core::{Device, Tensor};
use wan_core::{Error, Loader, Result, Stored};

/// A token embedding table `[vocab, dim]`, left where it is stored: only the rows asked for are widened.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Stored,
    device: Device,
}

impl Embedding {
    /// Takes `weight` `[vocab, dim]` from the loader.
    pub fn load(loader: &Loader, vocab: usize, dim: usize) -> Result<Self> {
        Ok(Self { table: loader.stored("weight", &[vocab, dim])?, device: loader.device().clone() })
    }

    /// Rows of the table: `[ids.len(), dim]` f32.
    ///
    /// Errors: [`Error::Invalid`] for an id outside the vocabulary.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let (vocab, dim) = (self.table.shape()[0], self.table.shape()[1]);
        let mut rows = vec![0f32; ids.len() * dim];
        for (id, row) in ids.iter().zip(rows.chunks_exact_mut(dim)) {
            let id = *id as usize;
            if id >= vocab {
                return Err(Error::invalid("token id", id, format!("below the vocabulary's {vocab}")));
            }
            self.table.widen_range(id * dim..(id + 1) * dim, row);
        }
        Ok(Tensor::from_vec(rows, (ids.len(), dim), &self.device)?)
    }
}
