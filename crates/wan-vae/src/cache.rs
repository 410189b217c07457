use candle_core::{D, Tensor};
use wan_core::Result;
use wan_core::device::to_host;

/// What the causal layers remember of the frames before the present chunk.
///
/// An explicit value: whoever streams a video owns one and passes it to every chunk. Cloning shares the
/// tensors.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    history: Vec<Option<Tensor>>,
    first: bool,
}

/// A layer's place in a [`Cache`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(usize);

/// Hands out the places while a model is loaded.
#[derive(Debug, Default)]
pub(crate) struct Slots(usize);

impl Slots {
    /// A place no other layer has.
    pub fn take(&mut self) -> Slot {
        self.0 += 1;
        Slot(self.0 - 1)
    }

    /// Places handed out.
    pub fn count(&self) -> usize {
        self.0
    }
}

impl Cache {
    /// The state before the first chunk.
    pub fn new(slots: usize) -> Self {
        Self { history: vec![None; slots], first: true }
    }

    /// Whether the present chunk is the video's first, of a single frame.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Ends the first chunk.
    pub fn advance(&mut self) {
        self.first = false;
    }

    /// The frames right before the chunk, `[c, H, W, C]` with c at most what [`Cache::push`] keeps.
    pub fn get(&self, slot: Slot) -> Option<&Tensor> {
        self.history[slot.0].as_ref()
    }

    /// Appends the frames of `x` `[T, H, W, C]` and keeps the last `keep` of all.
    pub fn push(&mut self, slot: Slot, x: &Tensor, keep: usize) -> Result<()> {
        let frames = x.dim(0)?;
        let past = &mut self.history[slot.0];
        let kept = match past.take() {
            Some(past) if frames < keep => {
                let old = past.dim(0)?.min(keep - frames);
                Tensor::cat(&[&past.narrow(0, past.dim(0)? - old, old)?, x], 0)?
            }
            // A copy: a view would hold the whole chunk.
            _ => x.narrow(0, frames - frames.min(keep), frames.min(keep))?.force_contiguous()?,
        };
        *past = Some(kept);
        Ok(())
    }

    /// Whether both remember the same values.
    pub fn equals(&self, other: &Self) -> Result<bool> {
        for (a, b) in self.history.iter().zip(&other.history) {
            let same = match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => equal(a, b)?,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(self.first == other.first)
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.history.iter().flatten().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
    }
}

/// Whether two tensors have the same shape and values. NaN differs from everything.
pub(crate) fn equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.id() == b.id() {
        return Ok(true);
    }
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        return Ok(false);
    }
    // Axis by axis, the longest runs first: a GPU would leave a reduction to one value to one block of threads.
    let mut different = a.ne(b)?;
    while different.rank() > 0 {
        different = different.max(D::Minus1)?;
    }
    Ok(to_host(&different)?.to_scalar::<u8>()? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn frames(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap().reshape((values.len(), 1, 1, 1)).unwrap()
    }

    fn held(cache: &Cache, slot: Slot) -> Vec<f32> {
        cache.get(slot).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_last_frames_are_kept_however_they_arrive() {
        let mut slots = Slots::default();
        let slot = slots.take();
        let mut cache = Cache::new(slots.count());
        assert!(cache.get(slot).is_none());
        for (chunk, want) in [
            (&[0.0][..], &[0.0][..]),
            (&[1.0], &[0.0, 1.0]),
            (&[2.0], &[1.0, 2.0]),
            (&[3.0, 4.0, 5.0, 6.0], &[5.0, 6.0]),
        ] {
            cache.push(slot, &frames(chunk), 2).unwrap();
            assert_eq!(held(&cache, slot), want);
        }
    }

    #[test]
    fn equality_is_of_values_and_position() {
        let mut slots = Slots::default();
        let slot = slots.take();
        let mut a = Cache::new(1);
        a.push(slot, &frames(&[1.0, 2.0]), 2).unwrap();
        let mut b = a.clone();
        b.push(slot, &frames(&[1.0, 2.0]), 2).unwrap();
        assert!(a.equals(&b).unwrap());
        b.push(slot, &frames(&[2.0]), 2).unwrap();
        assert!(!a.equals(&b).unwrap());
        assert!(!equal(&frames(&[f32::NAN]), &frames(&[f32::NAN])).unwrap());
        let mut c = a.clone();
        c.advance();
        assert!(!a.equals(&c).unwrap());
    }
}
