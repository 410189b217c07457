use super::schedule::{Action, SwapSchedule};

/// A device's copy queue and compute queue.
pub(crate) trait Queues {
    /// Why an entry cannot be queued.
    type Error;

    /// Puts one entry on its queue, without waiting for it.
    fn put(&mut self, action: Action) -> Result<(), Self::Error>;
}

/// A schedule and the queues that it is carried out on.
pub(crate) struct Swapper<Q> {
    schedule: SwapSchedule,
    queues: Q,
}

impl<Q: Queues> Swapper<Q> {
    pub fn new(schedule: SwapSchedule, queues: Q) -> Self {
        Self { schedule, queues }
    }

    pub fn queues(&self) -> &Q {
        &self.queues
    }

    pub fn queues_mut(&mut self) -> &mut Q {
        &mut self.queues
    }

    /// Starts a pass over the parts.
    pub fn begin(&mut self) -> Result<(), Q::Error> {
        let actions = self.schedule.begin();
        self.put(actions)
    }

    /// Begins the visit of a part; the slot it is in, if it is a swapped one.
    pub fn enter(&mut self, part: usize) -> Result<Option<usize>, Q::Error> {
        let (slot, actions) = self.schedule.enter(part);
        self.put(actions)?;
        Ok(slot)
    }

    /// Ends the visit.
    pub fn leave(&mut self) -> Result<(), Q::Error> {
        let actions = self.schedule.leave();
        self.put(actions)
    }

    fn put(&mut self, actions: Vec<Action>) -> Result<(), Q::Error> {
        let result = actions.into_iter().try_for_each(|action| self.queues.put(action));
        if result.is_err() {
            self.schedule.forget();
        }
        result
    }
}
