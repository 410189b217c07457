use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::Stored;
use crate::{Error, Result};

/// Something to be added to a weight while the weight itself stays as stored.
#[derive(Debug, Clone)]
pub enum Delta {
    /// `scale up down`, of low rank.
    LowRank {
        /// `[rank, inputs]`.
        down: Stored,
        /// `[outputs, rank]`.
        up: Stored,
        /// Factor.
        scale: f32,
    },
    /// `scale diff`.
    Full {
        /// Shape of the weight.
        diff: Stored,
        /// Factor.
        scale: f32,
    },
}

impl Delta {
    /// The addition to a small tensor of `shape`, f32 on `device`.
    ///
    /// Errors: [`Error::Shape`] for another shape, [`Error::Invalid`] for a product, which only matrices take.
    pub(super) fn small(&self, shape: &[usize], device: &Device) -> Result<Tensor> {
        match self {
            Self::Full { diff, scale } => {
                let diff = diff.clone().reshape(shape)?;
                Ok((diff.to_f32_tensor(device)? * f64::from(*scale))?)
            }
            Self::LowRank { down, .. } => {
                let what = format!("tensor {}", down.name());
                Err(Error::invalid(what, format!("a product for a weight of shape {shape:?}"), "a matrix"))
            }
        }
    }
}

/// Changes to the tensors of one model, by canonical name; several of one tensor add up in order.
#[derive(Debug, Clone, Default)]
pub struct Deltas(BTreeMap<String, Vec<Delta>>);

impl Deltas {
    /// Adds a change of `target`.
    pub fn add(&mut self, target: impl Into<String>, delta: Delta) {
        self.0.entry(target.into()).or_default().push(delta);
    }

    /// The changes of `target`, in the order they were added.
    pub fn of(&self, target: &str) -> &[Delta] {
        self.0.get(target).map_or(&[], Vec::as_slice)
    }

    /// Names of the tensors that change, sorted.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
