//! Who listens, and what each is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::frames;
use crate::metrics::Metrics;
use crate::worker::{Event, EventSink, JobRef, status_data};

/// Frames that may wait for a socket that does not take them; then it is closed.
const BACKLOG: usize = 1024;

/// Most sockets at a time.
const MOST_SOCKETS: usize = 256;

/// The sockets, by client.
pub(crate) struct Hub {
    state: Mutex<State>,
    next_connection: AtomicU64,
    /// Of the last `status`.
    remaining: AtomicUsize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    clients: HashMap<Arc<str>, Client>,
    /// The running job and the node that was told last, for clients that come back.
    current: Option<(JobRef, Value)>,
}

struct Client {
    connection: u64,
    frames: Sender<Message>,
    /// It announced `supports_preview_metadata`.
    previews: bool,
}

/// The hub's end of a socket.
pub(super) struct Registration {
    pub client_id: Arc<str>,
    pub connection: u64,
    /// Ends when another socket takes the client over.
    pub frames: Receiver<Message>,
}

impl Hub {
    /// Nobody listens yet; so many jobs have not ended.
    pub fn new(remaining: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            next_connection: AtomicU64::new(0),
            remaining: AtomicUsize::new(remaining),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket of `client_id`, in the place of an earlier one. Its first frame is `status`, with the client's id.
    /// `None` if there are too many.
    pub(super) fn register(&self, client_id: &str) -> Option<Registration> {
        let mut state = self.state();
        if state.clients.len() >= MOST_SOCKETS && !state.clients.contains_key(client_id) {
            return None;
        }
        let client_id: Arc<str> = client_id.into();
        let (sender, frames) = channel(BACKLOG);
        let mut hello = status_data(self.remaining());
        hello["sid"] = json!(&*client_id);
        let resumed = state.current.as_ref().filter(|(job, _)| job.client_id.as_ref() == Some(&client_id));
        let resumed = resumed.map(|(_, message)| frames::message(message));
        for frame in [Some(frames::text("status", hello)), resumed].into_iter().flatten() {
            // The channel is new, and has room.
            let _ = sender.try_send(frame);
        }
        let connection = self.next_connection.fetch_add(1, Ordering::Relaxed);
        state.clients.insert(client_id.clone(), Client { connection, frames: sender, previews: false });
        self.metrics.set_sockets(state.clients.len());
        Some(Registration { client_id, connection, frames })
    }

    /// The socket is gone; one that has taken its place stays.
    pub(super) fn unregister(&self, client_id: &str, connection: u64) {
        let mut state = self.state();
        if state.clients.get(client_id).is_some_and(|client| client.connection == connection) {
            state.clients.remove(client_id);
        }
        self.metrics.set_sockets(state.clients.len());
    }

    /// The socket can show previews.
    pub(super) fn announce_previews(&self, client_id: &str, connection: u64) {
        if let Some(client) = self.state().clients.get_mut(client_id).filter(|c| c.connection == connection) {
            client.previews = true;
        }
    }

    /// Jobs that had not ended when this was told last.
    pub fn remaining(&self) -> usize {
        self.remaining.load(Ordering::Relaxed)
    }

    /// The present `status`, for a socket that has been silent.
    pub(super) fn status_frame(&self) -> Message {
        frames::text("status", status_data(self.remaining()))
    }

    /// Closes all sockets.
    pub fn close(&self) {
        self.state().clients.clear();
    }
}

impl State {
    /// Sends to one client; one that does not take its frames is dropped, and may come back.
    fn send(&mut self, client_id: &Arc<str>, frame: Message) {
        let Some(client) = self.clients.get(client_id) else { return };
        if let Err(TrySendError::Full(_)) = client.frames.try_send(frame) {
            tracing::warn!(client = %client_id, "a socket takes no frames and is closed");
            self.clients.remove(client_id);
        }
    }

    /// Keeps what a client that comes back is told first.
    fn follow(&mut self, job: &JobRef, event: &Event) {
        match event {
            Event::Executing { node: Some(_) } => {
                self.current = Some((job.clone(), event.message(&job.prompt_id)));
            }
            Event::ExecutionSuccess { .. }
            | Event::ExecutionError(_)
            | Event::ExecutionInterrupted { .. } => self.current = None,
            _ => {}
        }
    }

    /// The preview frames of an event: before the message for clients that announced them, else after it.
    fn previews(
        &self,
        job: &JobRef,
        client_id: &Arc<str>,
        event: &Event,
    ) -> (Option<Message>, Option<Message>) {
        let Event::Progress { preview: Some(jpeg), node, .. } = event else { return (None, None) };
        if self.clients.get(client_id).is_some_and(|client| client.previews) {
            return (Some(frames::preview_with_metadata(jpeg, &job.prompt_id, node)), None);
        }
        (None, job.asks_previews.then(|| frames::preview(jpeg)))
    }
}

impl EventSink for Arc<Hub> {
    fn job_event(&self, job: &JobRef, event: &Event) {
        self.metrics.count_event(event);
        let mut state = self.state();
        state.follow(job, event);
        let Some(client_id) = &job.client_id else { return };
        if !state.clients.contains_key(client_id) {
            return;
        }
        let (before, after) = state.previews(job, client_id, event);
        let message = frames::message(&event.message(&job.prompt_id));
        for frame in [before, Some(message), after].into_iter().flatten() {
            state.send(client_id, frame);
        }
    }

    fn status(&self, queue_remaining: usize) {
        self.remaining.store(queue_remaining, Ordering::Relaxed);
        let frame = self.status_frame();
        let mut state = self.state();
        let clients: Vec<Arc<str>> = state.clients.keys().cloned().collect();
        for client_id in clients {
            state.send(&client_id, frame.clone());
        }
    }

    fn wants_previews(&self, job: &JobRef) -> bool {
        let state = self.state();
        let client = job.client_id.as_ref().and_then(|id| state.clients.get(id));
        client.is_some_and(|client| client.previews || job.asks_previews)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(3, Arc::new(Metrics::default())))
    }

    fn job(client: &str) -> JobRef {
        JobRef { prompt_id: "p".into(), client_id: Some(client.into()), asks_previews: false }
    }

    fn received(registration: &mut Registration) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Ok(frame) = registration.frames.try_recv() {
            frames.push(match frame {
                Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
                frame => json!(frame.into_data()[3]),
            });
        }
        frames
    }

    #[test]
    fn each_client_hears_of_its_own_jobs() {
        let hub = hub();
        let (mut a, mut b) = (hub.register("a").expect("room"), hub.register("b").expect("room"));
        hub.job_event(&job("a"), &Event::Executing { node: Some("52".into()) });
        hub.status(1);
        let (a, b) = (received(&mut a), received(&mut b));
        assert_eq!(a[0]["data"]["sid"], "a");
        assert_eq!(a[0]["data"]["status"]["exec_info"]["queue_remaining"], 3);
        assert_eq!(
            a.iter().map(|m| m["type"].as_str().unwrap()).collect::<Vec<_>>(),
            ["status", "executing", "status"]
        );
        assert_eq!(b.iter().map(|m| m["type"].as_str().unwrap()).collect::<Vec<_>>(), ["status", "status"]);
    }

    #[test]
    fn a_second_socket_takes_over_and_keeps_receiving() {
        let hub = hub();
        let mut first = hub.register("a").expect("room");
        hub.job_event(&job("a"), &Event::Executing { node: Some("52".into()) });
        let mut second = hub.register("a").expect("room");
        assert_eq!(received(&mut second)[1]["data"]["prompt_id"], "p", "what runs is told again");
        received(&mut first);
        assert!(matches!(first.frames.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)));
        hub.unregister("a", first.connection);
        hub.status(0);
        assert_eq!(received(&mut second).len(), 1);
    }

    #[test]
    fn previews_go_to_those_who_asked() {
        let hub = hub();
        let step = |preview: &[u8]| Event::Progress {
            value: 1,
            max: 2,
            node: "52".into(),
            preview: Some(preview.into()),
        };
        let mut client = hub.register("a").expect("room");
        received(&mut client);
        assert!(!hub.wants_previews(&job("a")));
        hub.job_event(&job("a"), &step(b"J"));
        assert_eq!(received(&mut client).len(), 1, "no preview without having asked");
        let asking = JobRef { asks_previews: true, ..job("a") };
        assert!(hub.wants_previews(&asking));
        hub.job_event(&asking, &step(b"J"));
        assert_eq!(received(&mut client)[1], json!(1), "after the message");
        hub.announce_previews("a", client.connection);
        hub.job_event(&job("a"), &step(b"J"));
        assert_eq!(received(&mut client)[0], json!(4), "before the message");
    }

    #[test]
    fn a_socket_that_takes_nothing_is_closed() {
        let hub = hub();
        let client = hub.register("a").expect("room");
        (0..BACKLOG).for_each(|n| hub.status(n));
        assert!(client.frames.is_closed() || client.frames.len() == BACKLOG);
        assert!(hub.state().clients.is_empty());
    }
}
