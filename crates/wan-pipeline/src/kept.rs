//! The DiT between two jobs.

use std::sync::{Mutex, PoisonError};

use wan_core::progress::{Observer, Stage};
use wan_dit::{Dit, Numerics};

use crate::swapping::Swapping;
use crate::{LoraChoice, MemoryPlan, Models, Plan, Processor, Result};

/// A DiT that stays where it is after a job, for the next one that asks for the same; only where more jobs are expected.
///
/// On a GPU it stays if all of it fits beside every other stage of its job. On the CPU it always does: its weights are
/// mapped.
#[derive(Default)]
pub(crate) struct KeptDit {
    wanted: bool,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    what: What,
    device_bytes: u64,
    model: Swapping<Dit>,
}

/// What makes one loaded DiT differ from another.
#[derive(PartialEq)]
struct What {
    loras: Vec<LoraChoice>,
    numerics: Numerics,
    swapped: usize,
}

impl What {
    fn new(plan: &Plan, memory: &MemoryPlan) -> Self {
        let request = &plan.request;
        Self { loras: request.loras.clone(), numerics: request.numerics(), swapped: memory.swapped_blocks }
    }
}

impl KeptDit {
    /// None yet, and more jobs than one expected.
    pub fn wanted() -> Self {
        Self { wanted: true, ..Self::default() }
    }

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.lock().is_some()
    }

    /// Bytes that it takes of the GPU.
    pub fn device_bytes(&self) -> u64 {
        self.lock().as_ref().map_or(0, |kept| kept.device_bytes)
    }

    /// Lets it go unless `plan` will use it and leaves room for it in all of its stages: before the first of them.
    pub fn make_room(&self, plan: &Plan, memory: &MemoryPlan) {
        let mut kept = self.lock();
        let stays = |k: &Kept| k.what == What::new(plan, memory) && leaves_room(memory);
        if kept.as_ref().is_some_and(|k| !stays(k)) {
            *kept = None;
        }
    }

    /// The DiT of `plan`, its blocks placed: the kept one, else one that is opened now.
    ///
    /// Errors: loading; [`crate::PipelineError::DeviceMemory`] where the GPU has no room.
    pub fn take(
        &self,
        models: &Models,
        plan: &Plan,
        memory: &MemoryPlan,
        observer: &dyn Observer,
    ) -> Result<Swapping<Dit>> {
        // Whatever is there leaves: it is used, or it is in the way.
        let kept = self.lock().take();
        match kept {
            Some(kept) if kept.what == What::new(plan, memory) => Ok(kept.model),
            other => {
                drop(other);
                let (dit, swapped) = models.dit_for(plan, memory)?;
                Swapping::place(dit, swapped, observer)
            }
        }
    }

    /// Keeps the DiT of `plan` if more jobs are expected and its other stages leave room.
    pub fn keep(&self, model: Swapping<Dit>, plan: &Plan, memory: &MemoryPlan) {
        if self.wanted && leaves_room(memory) {
            let device_bytes = denoise(memory).0;
            *self.lock() = Some(Kept { what: What::new(plan, memory), device_bytes, model });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the DiT's weights fit on the GPU beside every stage but its own. Not where blocks of it wait in main memory:
/// a GPU that has no room for all of them has none to spare, and theirs is pinned.
fn leaves_room(memory: &MemoryPlan) -> bool {
    let (weights, others) = denoise(memory);
    let fits = weights + others <= memory.budget.device_to_choose_by();
    memory.budget.processor == Processor::Cpu || (memory.swapped_blocks == 0 && fits)
}

/// The DiT's weights on the GPU, and the most that another stage takes there.
fn denoise(memory: &MemoryPlan) -> (u64, u64) {
    let (own, others): (Vec<_>, Vec<_>) = memory.items.iter().partition(|i| i.stage == Stage::Denoise);
    let weights = own.iter().map(|i| i.device_weights_bytes).sum();
    (weights, others.iter().map(|i| i.device_bytes()).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, DecodeMode, MemoryItem};

    fn plan(processor: Processor, device_bytes: Option<u64>) -> MemoryPlan {
        let item = |stage, weights, working| MemoryItem {
            stage,
            weights_bytes: weights,
            host_bytes: 0,
            process_bytes: 0,
            device_weights_bytes: weights,
            device_working_bytes: working,
        };
        MemoryPlan {
            budget: Budget { processor, host_bytes: None, host_is_limit: false, device_bytes },
            items: vec![
                item(Stage::EncodeText, 11_000, 500),
                item(Stage::Denoise, 17_000, 6_000),
                item(Stage::Decode, 300, 8_000),
            ],
            blocks: 40,
            swapped_blocks: 0,
            text_layers_streamed: false,
            decode: DecodeMode::Whole,
            tiles: 1,
            advice: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn it_stays_where_the_largest_other_stage_fits_beside_it() {
        // 17,000 and 11,500, of which nineteen parts in twenty may be counted on.
        assert!(leaves_room(&plan(Processor::Gpu, Some(30_000))));
        assert!(!leaves_room(&plan(Processor::Gpu, Some(29_980))));
        assert!(leaves_room(&plan(Processor::Gpu, None)), "nobody can tell how much there is");
        assert!(!leaves_room(&MemoryPlan { swapped_blocks: 1, ..plan(Processor::Gpu, Some(90_000)) }));
        assert!(leaves_room(&plan(Processor::Cpu, None)));
    }
}
