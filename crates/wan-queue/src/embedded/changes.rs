use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts changes, and wakes those who wait for one.
#[derive(Default)]
pub(super) struct Changes {
    revision: Mutex<u64>,
    changed: Condvar,
}

impl Changes {
    pub fn notify(&self) {
        *self.revision.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let revision = self.revision.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(revision, timeout, |now| *now <= seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
