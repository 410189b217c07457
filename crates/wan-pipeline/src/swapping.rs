//! Blocks in main memory while a job runs, and more of them where the GPU's memory runs out all the same.

use wan_core::progress::{Event, Observer};
use wan_dit::{Dit, swapped_blocks};

use crate::{PipelineError, Result};

/// A model of blocks, some of which can lie in main memory.
pub(crate) trait Blocks {
    /// How many there are.
    fn count(&self) -> usize;

    /// Puts this many into main memory and the rest onto the device, wherever they were.
    fn swap(&mut self, swapped: usize) -> Result<()>;
}

impl Blocks for Dit {
    fn count(&self) -> usize {
        self.blocks()
    }

    fn swap(&mut self, swapped: usize) -> Result<()> {
        Ok(self.place_blocks(&swapped_blocks(self.blocks(), swapped))?)
    }
}

/// Parts of all blocks that are added to those in main memory when memory runs out: an eighth is 1.5 GB of the 14B
/// model in FP8, more than estimates are wrong by.
const PARTS: usize = 8;

/// A model with some of its blocks in main memory.
pub(crate) struct Swapping<B> {
    model: B,
    swapped: usize,
}

impl<B: Blocks> Swapping<B> {
    /// Places the blocks, `swapped` of them in main memory, or more if the device has no room for the others.
    ///
    /// Errors: as [`Self::run`].
    pub fn place(model: B, swapped: usize, observer: &dyn Observer) -> Result<Self> {
        let swapped = swapped.min(model.count());
        let mut placed = Self { model, swapped };
        match placed.model.swap(swapped) {
            Err(error) if placed.can_retry(&error) => {
                placed.swap_more("placing the blocks", &error, observer)?
            }
            other => other.map_err(|e| placed.explained("placing the blocks", e))?,
        }
        Ok(placed)
    }

    /// The model.
    pub fn model(&self) -> &B {
        &self.model
    }

    /// How many blocks are in main memory.
    pub fn swapped(&self) -> usize {
        self.swapped
    }

    /// Computes `what`; if the device's memory runs out, once more with more blocks in main memory, where they stay.
    ///
    /// Errors: [`PipelineError::DeviceMemory`] if that is not enough; those of `compute`.
    pub fn run<T>(
        &mut self,
        what: &str,
        observer: &dyn Observer,
        mut compute: impl FnMut(&B) -> Result<T>,
    ) -> Result<T> {
        match compute(&self.model) {
            Err(error) if self.can_retry(&error) => {
                self.swap_more(what, &error, observer)?;
                compute(&self.model).map_err(|e| self.explained(what, e))
            }
            result => result.map_err(|e| self.explained(what, e)),
        }
    }

    fn can_retry(&self, error: &PipelineError) -> bool {
        error.is_out_of_memory() && self.swapped < self.model.count()
    }

    fn swap_more(&mut self, what: &str, error: &PipelineError, observer: &dyn Observer) -> Result<()> {
        let blocks = self.model.count();
        self.swapped = (self.swapped + blocks.div_ceil(PARTS)).min(blocks);
        observer.on_event(&Event::Note(&format!(
            "{what}: {error}; again with {} of {blocks} blocks in main memory",
            self.swapped
        )));
        let moved = self.model.swap(self.swapped);
        moved.map_err(|e| self.explained(what, e))
    }

    fn explained(&self, what: &str, error: PipelineError) -> PipelineError {
        match error {
            PipelineError::Core(source @ wan_core::Error::OutOfMemory(_)) => PipelineError::DeviceMemory {
                what: what.to_string(),
                swapped: self.swapped,
                blocks: self.model.count(),
                source: Box::new(source),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;

    use wan_core::Error;

    use super::*;

    /// Blocks of size 1 on a device that has room for some of them beside the computation's `working` memory.
    struct Device {
        blocks: usize,
        room: usize,
        on_device: usize,
        swaps: Vec<usize>,
    }

    fn device(blocks: usize, room: usize) -> Device {
        Device { blocks, room, on_device: 0, swaps: Vec::new() }
    }

    fn full() -> PipelineError {
        Error::OutOfMemory(candle_core::Error::msg("allocation of 1 GB")).into()
    }

    impl Device {
        fn compute(&self, working: usize) -> Result<usize> {
            if self.on_device + working > self.room { Err(full()) } else { Ok(self.on_device) }
        }
    }

    impl Blocks for Device {
        fn count(&self) -> usize {
            self.blocks
        }

        fn swap(&mut self, swapped: usize) -> Result<()> {
            self.swaps.push(swapped);
            self.on_device = self.blocks - swapped;
            if self.on_device > self.room { Err(full()) } else { Ok(()) }
        }
    }

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Note(note) = event {
                self.0.lock().unwrap().push(note.to_string());
            }
        }
    }

    #[test]
    fn a_step_that_finds_no_memory_is_taken_again_with_more_blocks_swapped() {
        let notes = Notes::default();
        let mut model = Swapping::place(device(40, 42), 2, &notes).unwrap();
        assert_eq!(model.run("step 1", &notes, |m| m.compute(4)).unwrap(), 38);
        assert_eq!(model.run("step 2", &notes, |m| m.compute(7)).unwrap(), 33);
        // They stay: the next step needs no second try.
        assert_eq!(model.run("step 3", &notes, |m| m.compute(9)).unwrap(), 33);
        assert_eq!(model.model().swaps, [2, 7]);
        let notes = notes.0.into_inner().unwrap();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("step 2: out of memory on the device: "), "{notes:?}");
        assert!(notes[0].ends_with("; again with 7 of 40 blocks in main memory"), "{notes:?}");
    }

    #[test]
    fn it_is_tried_once_and_then_refused_with_what_was_tried() {
        let tries = Cell::new(0);
        let notes = Notes::default();
        let mut model = Swapping::place(device(40, 42), 0, &notes).unwrap();
        let error = model.run("step 9", &notes, |m| {
            tries.set(tries.get() + 1);
            m.compute(30)
        });
        let text = error.unwrap_err().to_string();
        assert_eq!(tries.get(), 2);
        assert!(
            text.starts_with("step 9: the GPU's memory ran out with 5 of 40 blocks in main memory ("),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_tried_again_where_it_cannot_help() {
        let notes = Notes::default();
        let mut model = Swapping::place(device(8, 8), 8, &notes).unwrap();
        assert!(matches!(
            model.run("step 1", &notes, |m| m.compute(9)).unwrap_err(),
            PipelineError::DeviceMemory { swapped: 8, blocks: 8, .. }
        ));
        let mut model = Swapping::place(device(8, 8), 1, &notes).unwrap();
        let cancelled: Result<()> = model.run("step 1", &notes, |_| Err(Error::Cancelled.into()));
        assert!(cancelled.unwrap_err().is_cancelled());
        assert!(notes.0.into_inner().unwrap().is_empty());
        assert_eq!(model.model().swaps, [1]);
    }

    #[test]
    fn placing_takes_more_swapping_too() {
        let notes = Notes::default();
        let model = Swapping::place(device(40, 36), 0, &notes).unwrap();
        assert_eq!(model.model().swaps, [0, 5]);
        assert!(matches!(
            Swapping::place(device(40, 20), 0, &notes).map(|_| ()).unwrap_err(),
            PipelineError::DeviceMemory { swapped: 5, .. }
        ));
    }
}
