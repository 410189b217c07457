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

/// Most sockets of one client: the copies of a browser's tab have one client id.
const MOST_OF_A_CLIENT: usize = 8;

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
    /// Of each client at least one socket, the oldest first.
    clients: HashMap<Arc<str>, Vec<Socket>>,
    /// The running job and the node that was told last, for clients that come back.
    current: Option<(JobRef, Value)>,
}

struct Socket {
    connection: u64,
    frames: Sender<Message>,
    /// It announced `supports_preview_metadata`.
    previews: bool,
}

/// The hub's end of a socket.
pub(super) struct Registration {
    pub client_id: Arc<str>,
    pub connection: u64,
    /// Ends when the socket is to be closed.
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

    /// A socket of `client_id`, beside earlier ones. Its first frame is `status`, with the client's id. Where there are too
    /// many, it takes the place of the client's oldest, which may be one that was lost without a word; `None` if the
    /// client has none.
    pub(super) fn register(&self, client_id: &str) -> Option<Registration> {
        let mut state = self.state();
        let own = state.clients.get(client_id).map_or(0, Vec::len);
        if own >= MOST_OF_A_CLIENT || state.sockets() >= MOST_SOCKETS {
            state.clients.get_mut(client_id)?.remove(0);
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
        let socket = Socket { connection, frames: sender, previews: false };
        state.clients.entry(client_id.clone()).or_default().push(socket);
        self.metrics.set_sockets(state.sockets());
        Some(Registration { client_id, connection, frames })
    }

    /// The socket is gone; the client's others stay.
    pub(super) fn unregister(&self, client_id: &str, connection: u64) {
        let mut state = self.state();
        state.keep(client_id, |socket| socket.connection != connection);
        self.metrics.set_sockets(state.sockets());
    }

    /// The socket can show previews.
    pub(super) fn announce_previews(&self, client_id: &str, connection: u64) {
        let mut state = self.state();
        let mut sockets = state.clients.get_mut(client_id).into_iter().flatten();
        if let Some(socket) = sockets.find(|socket| socket.connection == connection) {
            socket.previews = true;
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
    fn sockets(&self) -> usize {
        self.clients.values().map(Vec::len).sum()
    }

    /// Drops those of a client's sockets that are not to be kept.
    fn keep(&mut self, client_id: &str, is_kept: impl FnMut(&mut Socket) -> bool) {
        let Some(sockets) = self.clients.get_mut(client_id) else { return };
        sockets.retain_mut(is_kept);
        if sockets.is_empty() {
            self.clients.remove(client_id);
        }
    }

    /// Sends to the sockets of one client what `frames` makes for each; one that does not take it is dropped, and may
    /// come back.
    fn send(&mut self, client_id: &str, frames: impl Fn(&Socket) -> Vec<Message>) {
        self.keep(client_id, |socket| {
            let is_full = |frame| matches!(socket.frames.try_send(frame), Err(TrySendError::Full(_)));
            let dropped = frames(socket).into_iter().any(is_full);
            if dropped {
                tracing::warn!(client = %client_id, "a socket takes no frames and is closed");
            }
            !dropped
        });
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
}

/// The frames of an event: the preview before the message for sockets that announced it, after it for jobs that ask for
/// it, else none.
struct EventFrames {
    announced: Option<Message>,
    message: Message,
    asked: Option<Message>,
}

impl EventFrames {
    fn new(job: &JobRef, event: &Event) -> Self {
        let preview = match event {
            Event::Progress { preview: Some(jpeg), node, .. } => Some((jpeg, node)),
            _ => None,
        };
        let with_metadata =
            |(jpeg, node): (&Arc<[u8]>, &String)| frames::preview_with_metadata(jpeg, &job.prompt_id, node);
        Self {
            announced: preview.map(with_metadata),
            message: frames::message(&event.message(&job.prompt_id)),
            asked: preview.filter(|_| job.asks_previews).map(|(jpeg, _)| frames::preview(jpeg)),
        }
    }

    fn of(&self, socket: &Socket) -> Vec<Message> {
        let (before, after) =
            if socket.previews { (self.announced.clone(), None) } else { (None, self.asked.clone()) };
        [before, Some(self.message.clone()), after].into_iter().flatten().collect()
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
        let frames = EventFrames::new(job, event);
        state.send(client_id, |socket| frames.of(socket));
    }

    fn status(&self, queue_remaining: usize) {
        self.remaining.store(queue_remaining, Ordering::Relaxed);
        let frame = self.status_frame();
        let mut state = self.state();
        let clients: Vec<Arc<str>> = state.clients.keys().cloned().collect();
        for client_id in clients {
            state.send(&client_id, |_| vec![frame.clone()]);
        }
    }

    fn wants_previews(&self, job: &JobRef) -> bool {
        let state = self.state();
        let mut sockets = job.client_id.iter().filter_map(|id| state.clients.get(id)).flatten();
        sockets.any(|socket| socket.previews || job.asks_previews)
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
    fn every_socket_of_a_client_hears_everything() {
        let hub = hub();
        let mut first = hub.register("a").expect("room");
        hub.job_event(&job("a"), &Event::Executing { node: Some("52".into()) });
        let mut second = hub.register("a").expect("room");
        assert_eq!(received(&mut second)[1]["data"]["prompt_id"], "p", "what runs is told again");
        received(&mut first);
        hub.job_event(&job("a"), &Event::Executing { node: Some("53".into()) });
        assert_eq!((received(&mut first).len(), received(&mut second).len()), (1, 1));
        hub.unregister("a", first.connection);
        hub.status(0);
        assert_eq!((received(&mut first).len(), received(&mut second).len()), (0, 1));
        hub.unregister("a", second.connection);
        assert!(hub.state().clients.is_empty());
    }

    #[test]
    fn sockets_are_bounded_and_a_client_always_gets_a_new_one() {
        let is_closed = |registration: &mut Registration| {
            received(registration);
            matches!(
                registration.frames.try_recv(),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)
            )
        };
        let hub = hub();
        let mut own: Vec<_> = (0..=MOST_OF_A_CLIENT).map(|_| hub.register("a").expect("room")).collect();
        let closed: Vec<bool> = own.iter_mut().map(is_closed).collect();
        assert!(closed[0] && !closed[1..].contains(&true), "the oldest makes room: {closed:?}");
        let others: Vec<_> =
            (MOST_OF_A_CLIENT..MOST_SOCKETS).map(|n| hub.register(&format!("{n}"))).collect();
        assert!(others.iter().all(Option::is_some) && hub.register("one more").is_none());
        assert!(hub.register("a").is_some() && is_closed(&mut own[1]));
        assert_eq!(hub.state().sockets(), MOST_SOCKETS);
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
