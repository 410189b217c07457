//! Which part goes into which slot, and who waits for what: the order of block swapping as data.

/// One entry of a device's copy queue or compute queue. Each slot has two events, `filled` and `free`; an await holds
/// its queue until the other one has passed the latest record put there before the await.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Copy queue: await `free`.
    AwaitFree { slot: usize },
    /// Copy queue: the part's weights from host memory into the slot.
    Copy { part: usize, slot: usize },
    /// Copy queue: record `filled`.
    RecordFilled { slot: usize },
    /// Compute queue: await `filled`. What is put there from now until `RecordFree` reads the slot.
    AwaitFilled { slot: usize },
    /// Compute queue: record `free`.
    RecordFree { slot: usize },
}

/// The state of swapping: what each slot holds once all that was queued has run.
///
/// Parts are visited in rising order, pass after pass, resident ones in between. A visited slot is refilled as soon as
/// its visit ends, with the nearest part to come that no slot holds; past the last one that is the first of the next
/// pass, where one is expected. With more swapped parts than slots this is one copy a visit, queued as many visits ahead as there are
/// slots; with fewer, each part is copied once and stays. A pass may stop anywhere and the next one starts at the
/// beginning, or parts may come in any other order: every visit still gets its part, at worst with a copy that
/// nothing hides.
#[derive(Debug, Clone)]
pub(crate) struct SwapSchedule {
    swapped: Vec<usize>,
    slots: Vec<Option<usize>>,
    again: bool,
    open: Option<Visit>,
}

#[derive(Debug, Clone, Copy)]
struct Visit {
    /// Position in `swapped`.
    position: usize,
    slot: usize,
}

impl SwapSchedule {
    /// - `swapped`: numbers of the parts that lie in host memory
    /// - `slots`: at most this many; there are never more slots than swapped parts
    /// - `again`: whether a pass is expected to follow each: its first parts are then brought behind the last ones
    pub fn new(swapped: &[usize], slots: usize, again: bool) -> Self {
        let mut swapped = swapped.to_vec();
        swapped.sort_unstable();
        swapped.dedup();
        let slots = slots.max(1).min(swapped.len());
        Self { swapped, slots: vec![None; slots], again, open: None }
    }

    /// Slots in use.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The start of a pass over the parts: the first ones are on their way, wherever the pass before stopped.
    pub fn begin(&mut self) -> Vec<Action> {
        let mut actions = self.close();
        self.prefetch(0, &mut actions);
        actions
    }

    /// Begins a visit: the slot that holds `part` for what is put on the compute queue behind these actions, or none
    /// if the part is not swapped. A visit that was left open by an error ends.
    pub fn enter(&mut self, part: usize) -> (Option<usize>, Vec<Action>) {
        let mut actions = self.close();
        let Ok(position) = self.swapped.binary_search(&part) else { return (None, actions) };
        let slot = match self.slot_of(part) {
            Some(slot) => slot,
            None => {
                let slot = self.furthest(position);
                self.fill(part, slot, &mut actions);
                slot
            }
        };
        actions.push(Action::AwaitFilled { slot });
        self.open = Some(Visit { position, slot });
        (Some(slot), actions)
    }

    /// Ends the visit: its slot is free for the next part to come.
    pub fn leave(&mut self) -> Vec<Action> {
        let next = self.open.map(|visit| visit.position + 1);
        let mut actions = self.close();
        if let Some(next) = next {
            self.prefetch(next, &mut actions);
        }
        actions
    }

    /// After an action failed: no slot is known to hold anything.
    pub fn forget(&mut self) {
        self.slots.fill(None);
    }

    fn close(&mut self) -> Vec<Action> {
        self.open.take().map(|visit| Action::RecordFree { slot: visit.slot }).into_iter().collect()
    }

    fn slot_of(&self, part: usize) -> Option<usize> {
        self.slots.iter().position(|held| *held == Some(part))
    }

    /// Visits from position `from` on until `part` comes; more than any for nothing.
    fn distance(&self, held: Option<usize>, from: usize) -> usize {
        let count = self.swapped.len();
        let position = held.and_then(|part| self.swapped.binary_search(&part).ok());
        position.map_or(usize::MAX, |position| (position + count - from % count) % count)
    }

    /// The slot whose part is needed last from position `from` on.
    fn furthest(&self, from: usize) -> usize {
        let distance = |slot: &usize| self.distance(self.slots[*slot], from);
        (0..self.slots.len()).max_by_key(distance).unwrap_or(0)
    }

    /// Fills slots until they hold the parts from position `from` on, nearest first.
    fn prefetch(&mut self, from: usize, actions: &mut Vec<Action>) {
        for position in from..from + self.slots.len() {
            if position >= self.swapped.len() && !self.again {
                break;
            }
            let part = self.swapped[position % self.swapped.len()];
            if self.slot_of(part).is_none() {
                let slot = self.furthest(from);
                self.fill(part, slot, actions);
            }
        }
    }

    fn fill(&mut self, part: usize, slot: usize, actions: &mut Vec<Action>) {
        self.slots[slot] = Some(part);
        actions.extend([
            Action::AwaitFree { slot },
            Action::Copy { part, slot },
            Action::RecordFilled { slot },
        ]);
    }
}
