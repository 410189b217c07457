use std::net::IpAddr;
use std::path::PathBuf;

use wan_queue::QueueError;

/// Why the server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody on the network could use it.
    #[error(
        "--listen {listen}: found no token, expected one where other machines can connect; name one with --token, \
         or say --insecure"
    )]
    Unprotected {
        /// The address.
        listen: IpAddr,
    },
    /// A token that no client could send.
    #[error("token: found {found}, expected 8 to 512 visible ASCII characters without spaces")]
    Token {
        /// What is wrong with it.
        found: &'static str,
    },
    /// An origin that no browser sends.
    #[error("--enable-cors-header {found}: expected an origin such as http://localhost:5173")]
    Origin {
        /// The origin.
        found: String,
    },
    /// The address cannot be had.
    #[error("{listen}:{port}: {source}; choose another --port")]
    Bind {
        /// The address.
        listen: IpAddr,
        /// The port.
        port: u16,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A folder cannot be used.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There is no page to serve.
    #[error("--front-end-root {}: found no index.html", path.display())]
    FrontEnd {
        /// The folder.
        path: PathBuf,
    },
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The worker does not start.
    #[error(transparent)]
    Worker(#[from] crate::worker::StartError),
    /// The GPU answers no more. Another process may be able to use it, and goes on with the queue.
    #[error("the GPU was lost; the queue is kept, and goes on when the server starts again")]
    DeviceLost,
    /// The system refuses threads or sockets.
    #[error("the server cannot run: {0}")]
    Io(#[from] std::io::Error),
}
