//! What goes on beside a job while it computes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wan_core::progress::CancelToken;
use wan_queue::{JobQueue, Lease, QueueError};

use super::bus::Bus;
use super::report::Reporter;

/// How long a job stays claimed without a sign of life.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Between two signs of life. Clients take a socket for dead after 10 s of silence.
const BEAT: Duration = Duration::from_secs(4);

/// How soon a shutdown is noticed at the latest.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Watches over one job.
pub(super) struct Heartbeat<'a> {
    pub queue: &'a dyn JobQueue,
    pub lease: &'a Lease,
    pub bus: &'a Bus,
    pub reporter: &'a Reporter<'a>,
    /// Stops the job.
    pub cancel: &'a CancelToken,
    /// Set when the worker shuts down.
    pub stop: &'a AtomicBool,
    /// When the job began, and how long it may take.
    pub begun: Instant,
    pub job_time: Duration,
    /// Set when the job is stopped for that, and nobody wished it before.
    pub overdue: AtomicBool,
    /// Set when the job has ended.
    pub done: AtomicBool,
}

impl Heartbeat<'_> {
    /// Keeps the lease, looks for a wish to stop, and says where the job stands, until it has ended.
    pub fn run(&self) {
        let mut seen = self.queue.revision();
        let mut beat = Instant::now();
        while !self.done.load(Ordering::Acquire) {
            if self.is_unwanted() {
                self.cancel.cancel();
            } else if !self.cancel.is_cancelled() && self.begun.elapsed() >= self.job_time {
                self.overdue.store(true, Ordering::Release);
                self.cancel.cancel();
            }
            if beat.elapsed() >= BEAT {
                beat = Instant::now();
                if let Err(error) = self.queue.renew(self.lease, LEASE) {
                    tracing::warn!(prompt_id = %self.lease.prompt_id, %error, "the lease could not be renewed");
                }
                self.reporter.repeat();
                self.bus.publish_status();
            }
            seen = self.queue.wait_for_change(seen, TICK);
        }
    }

    fn is_unwanted(&self) -> bool {
        match self.queue.is_cancelled(self.lease) {
            Ok(cancelled) => cancelled || self.stop.load(Ordering::Acquire),
            Err(QueueError::LeaseLost { .. }) => true,
            Err(_) => self.stop.load(Ordering::Acquire),
        }
    }
}
