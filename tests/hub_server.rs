//! A hub on the loopback device: one listener answers as the hub and redirects to the other, its storage.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CHUNK: usize = 16 << 10;

/// One file and how badly it is served.
#[derive(Clone, Default)]
pub struct Served {
    pub bytes: Arc<Vec<u8>>,
    /// Sent by the storage instead, if set.
    pub sent: Option<Arc<Vec<u8>>>,
    /// Length that the hub claims, if not the true one.
    pub claimed: Option<u64>,
    /// Connections that end after this many bytes, and how many do.
    pub drops: (usize, usize),
    /// Pause after every 16 KiB.
    pub pause: Duration,
    pub ignores_ranges: bool,
    /// Answered instead of the file.
    pub status: Option<u16>,
    pub needs_token: bool,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Served>,
    /// Request heads as they came, with the listener's name before.
    log: Vec<String>,
    body_bytes: u64,
}

/// The running server; its threads end with the test process.
#[derive(Clone)]
pub struct HubServer {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl HubServer {
    pub fn start() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
        let storage = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", hub.local_addr().expect("bound"));
        // Another name of the same host, so that the token must not be sent there.
        let base = format!("http://localhost:{}", storage.local_addr().expect("bound").port());
        let state: Arc<Mutex<State>> = Arc::default();
        for (listener, base) in [(hub, Some(base)), (storage, None)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, base) = (state.clone(), base.clone());
                    // A client that is killed breaks its connection: no failure of the server.
                    std::thread::spawn(move || answer(stream, &state, base.as_deref()));
                }
            });
        }
        Self { state, endpoint }
    }

    /// Serves `path` (`OWNER/NAME/FILE`).
    pub fn put(&self, path: &str, served: Served) {
        self.state.lock().unwrap().files.insert(path.to_string(), served);
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Served)) {
        change(self.state.lock().unwrap().files.get_mut(path).expect("a served file"));
    }

    /// Requests that the storage (`true`) or the hub got.
    pub fn requests(&self, storage: bool) -> Vec<String> {
        let prefix = if storage { "storage " } else { "hub " };
        self.state.lock().unwrap().log.iter().filter(|l| l.starts_with(prefix)).cloned().collect()
    }

    /// Bytes of bodies that were sent.
    pub fn body_bytes(&self) -> u64 {
        self.state.lock().unwrap().body_bytes
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, storage: Option<&str>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let place = if storage.is_some() { "hub" } else { "storage" };
        state.lock().unwrap().log.push(format!("{place} {head}"));
        let mut words = head.split_whitespace();
        let (method, target) = (words.next()?, words.next()?);
        let path = target.trim_start_matches('/').replacen("/resolve/main/", "/", 1);
        let Some(served) = state.lock().unwrap().files.get(&path).cloned() else {
            write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        };
        match storage {
            Some(storage) => hub(&mut stream, &head, &path, &served, storage)?,
            None => send(&mut stream, &head, method, &path, &served, state)?,
        }
    }
}

fn hub(stream: &mut TcpStream, head: &str, path: &str, served: &Served, storage: &str) -> Option<()> {
    let status = match served.status {
        Some(status) => Some(status),
        None if served.needs_token && header(head, "authorization") != Some("Bearer secret") => Some(401),
        None => None,
    };
    if let Some(status) = status {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let length = served.claimed.unwrap_or(served.bytes.len() as u64);
    let etag = sha256(&served.bytes);
    write!(
        stream,
        "HTTP/1.1 302 Found\r\nLocation: {storage}/{path}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{etag}\"\r\n\
         X-Linked-Size: {length}\r\nContent-Length: 0\r\n\r\n"
    )
    .ok()
}

fn send(
    stream: &mut TcpStream,
    head: &str,
    method: &str,
    path: &str,
    served: &Served,
    state: &Mutex<State>,
) -> Option<()> {
    let body = served.sent.as_ref().unwrap_or(&served.bytes);
    let range = header(head, "range").filter(|_| !served.ignores_ranges);
    let start = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let length = body.len() - start.unwrap_or(0);
    match start {
        Some(start) => write!(
            stream,
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {length}\r\n\r\n",
            body.len() - 1,
            body.len()
        ),
        None => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"),
    }
    .ok()?;
    if method == "HEAD" {
        return Some(());
    }
    let drop_after = {
        let mut state = state.lock().unwrap();
        let drops = &mut state.files.get_mut(path)?.drops;
        let drop_after = (drops.1 > 0).then_some(drops.0);
        drops.1 = drops.1.saturating_sub(1);
        drop_after
    };
    let mut sent = 0;
    for chunk in body[start.unwrap_or(0)..].chunks(CHUNK) {
        if drop_after.is_some_and(|n| sent >= n) {
            return None;
        }
        stream.write_all(chunk).ok()?;
        sent += chunk.len();
        state.lock().unwrap().body_bytes += chunk.len() as u64;
        std::thread::sleep(served.pause);
    }
    Some(())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
