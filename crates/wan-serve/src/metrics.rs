//! `GET /metrics`, for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wan_queue::Counts;

use crate::worker::Event;

/// Counts of what has happened since the start.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabels, Counter>,
    refused: Counter,
    jobs: Family<JobLabels, Counter>,
    steps: Counter,
    sockets: Gauge,
    running: Gauge,
    pending: Gauge,
    history: Gauge,
    resident: Gauge<u64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    outcome: JobOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // the names are the labels' values
enum JobOutcome {
    success,
    error,
    interrupted,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("wan_run");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        Self {
            requests: register!("http_responses", "Answers by status"),
            refused: register!("wrong_tokens", "Requests with a wrong token"),
            jobs: register!("jobs", "Jobs that ended, by outcome"),
            steps: register!("steps", "Steps of nodes that were done"),
            sockets: register!("sockets", "Open WebSockets"),
            running: register!("queue_running", "Jobs that run"),
            pending: register!("queue_pending", "Jobs that wait"),
            history: register!("history_entries", "Jobs in the history"),
            resident: register!("memory_peak_bytes", "Most memory the process has had"),
            registry,
        }
    }
}

impl Metrics {
    /// An answer was given.
    pub fn count_response(&self, status: u16) {
        self.requests.get_or_create(&ResponseLabels { status }).inc();
    }

    /// Somebody presented a wrong token.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// Something happened to a job.
    pub fn count_event(&self, event: &Event) {
        let outcome = match event {
            Event::Progress { .. } => {
                self.steps.inc();
                return;
            }
            Event::ExecutionSuccess { .. } => JobOutcome::success,
            Event::ExecutionError(_) => JobOutcome::error,
            Event::ExecutionInterrupted { .. } => JobOutcome::interrupted,
            _ => return,
        };
        self.jobs.get_or_create(&JobLabels { outcome }).inc();
    }

    /// Sets the number of open sockets.
    pub fn set_sockets(&self, open: usize) {
        self.sockets.set(open as i64);
    }

    /// The text that Prometheus reads, with the queue as it is now.
    pub fn render(&self, counts: Counts) -> Result<String, std::fmt::Error> {
        self.running.set(counts.running as i64);
        self.pending.set(counts.pending as i64);
        self.history.set(counts.history as i64);
        self.resident.set(wan_core::memory::peak_resident_bytes().unwrap_or_default());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_metric() {
        let metrics = Metrics::default();
        metrics.count_response(200);
        metrics.count_event(&Event::ExecutionSuccess { timestamp: 0 });
        let text = metrics.render(Counts { running: 1, pending: 7, history: 9 }).expect("text");
        for line in [
            "wan_run_http_responses_total{status=\"200\"} 1",
            "wan_run_jobs_total{outcome=\"success\"} 1",
            "wan_run_queue_pending 7",
            "wan_run_history_entries 9",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
