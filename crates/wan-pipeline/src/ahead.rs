use std::sync::{Mutex, PoisonError};

/// Something that is prepared while something else runs, for one use: at most one at a time.
pub(crate) struct Ahead<K, T>(Mutex<Option<(K, T)>>);

impl<K: PartialEq, T> Ahead<K, T> {
    pub fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// Drops what was prepared, whatever it is for; only then prepares anew, for `key`.
    ///
    /// Errors: those of `prepare`.
    pub fn put<E>(&self, key: K, prepare: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        self.clear();
        let prepared = prepare()?;
        *self.lock() = Some((key, prepared));
        Ok(())
    }

    /// What was prepared for `key`; anything else is dropped.
    pub fn take(&self, key: &K) -> Option<T> {
        let prepared = self.lock().take();
        prepared.filter(|(found, _)| found == key).map(|(_, prepared)| prepared)
    }

    /// Drops what was prepared.
    pub fn clear(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(K, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn it_is_for_one_use_of_what_it_was_prepared_for() {
        let ahead = Ahead::none();
        let alive = Rc::new(());
        let prepare = |key| ahead.put::<()>(key, || Ok(alive.clone())).unwrap();
        prepare(1);
        assert!(ahead.take(&1).is_some() && ahead.take(&1).is_none());
        prepare(2);
        assert!(ahead.take(&1).is_none());
        assert_eq!(Rc::strong_count(&alive), 1, "what is for something else is dropped");
        assert!(ahead.take(&2).is_none());
    }

    #[test]
    fn the_old_one_goes_before_the_new_one_comes() {
        let ahead = Ahead::none();
        let alive = Rc::new(());
        ahead.put::<()>(1, || Ok(alive.clone())).unwrap();
        let failed = ahead.put(2, || {
            assert_eq!(Rc::strong_count(&alive), 1);
            Err("no memory")
        });
        assert_eq!((failed, ahead.take(&1).is_none()), (Err("no memory"), true));
    }
}
