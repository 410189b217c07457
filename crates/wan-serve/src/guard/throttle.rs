//! Guessing tokens is made slow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens that one address may present in [`WINDOW`] before its answers are delayed.
const FREE: u32 = 30;

const WINDOW: Duration = Duration::from_secs(60);

const DELAY: Duration = Duration::from_secs(1);

/// Addresses that are remembered.
const MOST: usize = 4096;

/// Counts wrong tokens by address.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Throttle {
    /// Counts an attempt of `address`; the time its answer is to be held back.
    pub fn wrong(&self, address: IpAddr, now: Instant) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        }
        if seen.len() >= MOST && !seen.contains_key(&address) {
            return DELAY;
        }
        let (count, since) = seen.entry(address).or_insert((0, now));
        if now.duration_since(*since) >= WINDOW {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        if *count > FREE { DELAY } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_attempts_in_a_minute_are_slow() {
        let (throttle, address, start) = (Throttle::default(), IpAddr::from([10, 0, 0, 1]), Instant::now());
        assert!((0..FREE).all(|_| throttle.wrong(address, start).is_zero()));
        assert_eq!(throttle.wrong(address, start), DELAY);
        assert!(throttle.wrong(IpAddr::from([10, 0, 0, 2]), start).is_zero());
        assert!(throttle.wrong(address, start + WINDOW).is_zero());
    }
}
