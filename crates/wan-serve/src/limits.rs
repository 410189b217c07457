//! What clients and jobs may take.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::add_extension::AddExtension;

/// Bounds of what the server takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may wait.
    pub queue: usize,
    /// Connections at a time, sockets of `/ws` not counted; those have a bound of their own.
    pub connections: usize,
    /// Time from a request's first byte to the first of its answer.
    pub request_time: Duration,
    /// Time that a job may compute, counted anew when it goes on after a restart.
    pub job_time: Duration,
    /// Bytes that stay free on the disk of the data folder.
    pub free_disk: u64,
    /// Most bytes in the data folder.
    pub data: Option<u64>,
}

impl Default for Limits {
    /// 1000 jobs, 512 connections, five minutes a request, a day a job, 256 MiB free.
    fn default() -> Self {
        Self {
            queue: 1000,
            connections: 512,
            request_time: Duration::from_secs(300),
            job_time: Duration::from_secs(24 * 60 * 60),
            free_disk: 256 << 20,
            data: None,
        }
    }
}

/// Accepts up to this many connections and closes any beyond.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimit(Arc<Semaphore>);

impl ConnectionLimit {
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }
}

impl<S> Accept<TcpStream, S> for ConnectionLimit {
    type Stream = TcpStream;
    /// The connection's service holds its place for as long as it is served.
    type Service = AddExtension<S, Arc<OwnedSemaphorePermit>>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = self.0.clone().try_acquire_owned().map_err(|_| {
            tracing::warn!("too many connections; one is refused");
            io::Error::other("too many connections")
        });
        // Frames of a socket are small and shall not wait for one another.
        let accepted = place.and_then(|place| {
            stream.set_nodelay(true)?;
            Ok((stream, AddExtension::new(service, Arc::new(place))))
        });
        std::future::ready(accepted)
    }
}
