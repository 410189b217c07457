//! `/ws`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::server::{Server, TOKEN, guide, long};

struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn open(server: &Server, client: &str) -> Self {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a time limit");
        let address = format!("ws://{}/api/ws?clientId={client}&token={TOKEN}", server.address());
        Self(tungstenite::client::client(address, stream).expect("a handshake").0)
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).expect("sent");
    }

    /// The next frame; a binary one becomes its kind.
    fn next(&mut self) -> Value {
        loop {
            match self.0.read().expect("a frame") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Binary(bytes) => return json!({"type": "binary", "data": bytes[3]}),
                _ => {}
            }
        }
    }

    /// All frames up to the end of a job.
    fn until_end(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            let is_end = frame["type"] == "executing" && frame["data"]["node"].is_null();
            frames.push(frame);
            if is_end {
                return frames;
            }
        }
    }
}

fn kind(frame: &Value) -> &str {
    frame["type"].as_str().expect("a type")
}

#[test]
fn a_job_is_told_in_comfyuis_order() {
    let server = Server::start();
    let (mut mine, mut other) = (Socket::open(&server, "mine"), Socket::open(&server, "other"));
    let hello = mine.next();
    assert_eq!((kind(&hello), &hello["data"]["sid"]), ("status", &json!("mine")));
    let id = server.submit_with(&guide(), json!({"client_id": "mine"}));
    let frames = mine.until_end();
    let kinds: Vec<&str> = frames.iter().map(kind).collect();
    // How often the status is told among them, and when, is left to the moment.
    let telling: Vec<&str> = kinds.iter().copied().filter(|kind| *kind != "status").collect();
    assert_eq!(
        (kinds[0], &telling[..2]),
        ("status", &["execution_start", "execution_cached"][..]),
        "{kinds:?}"
    );
    assert_eq!(kinds[kinds.len() - 3..], ["execution_success", "status", "executing"], "{kinds:?}");
    let count = |wanted: &str| kinds.iter().filter(|kind| **kind == wanted).count();
    assert_eq!((count("execution_cached"), count("binary")), (1, 0), "previews are only for those who ask");
    let remaining = |frame: &Value| frame["data"]["status"]["exec_info"]["queue_remaining"].clone();
    assert_eq!((remaining(&frames[0]), remaining(&frames[frames.len() - 2])), (json!(1), json!(0)));
    let steps: Vec<i64> = frames
        .iter()
        .filter(|frame| kind(frame) == "progress" && frame["data"]["node"] == "52")
        .map(|frame| frame["data"]["value"].as_i64().expect("an integer"))
        .collect();
    assert_eq!(steps, [1, 2]);
    let started: Vec<&str> = frames
        .iter()
        .filter(|frame| kind(frame) == "executing")
        .filter_map(|frame| frame["data"]["node"].as_str())
        .collect();
    assert_eq!(started.len(), 11, "{started:?}");
    assert!(!started.contains(&"47") && started.ends_with(&["52", "53", "54"]), "{started:?}");
    let executed = frames.iter().find(|frame| kind(frame) == "executed").expect("an output");
    assert!(executed["data"]["output"]["gifs"][0]["filename"].is_string());
    for frame in frames.iter().filter(|frame| kind(frame) != "status") {
        assert_eq!(frame["data"]["prompt_id"], json!(id), "{frame}");
    }
    let seen: Vec<Value> = (0..4).map(|_| other.next()).collect();
    assert!(seen.iter().all(|frame| kind(frame) == "status"), "{seen:?}");
}

#[test]
fn the_history_is_there_before_the_end_is_told() {
    let server = Server::start();
    let mut socket = Socket::open(&server, "c");
    let id = server.submit_with(&guide(), json!({"client_id": "c"}));
    while kind(&socket.next()) != "execution_success" {}
    assert!(server.get(&format!("/history/{id}")).json().get(&id).is_some());
    assert_eq!(server.get("/prompt").json()["exec_info"]["queue_remaining"], 0);
}

#[test]
fn previews_go_to_clients_that_announce_them() {
    let server = Server::start();
    let mut socket = Socket::open(&server, "c");
    socket.next();
    socket.send(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}));
    let flags = socket.next();
    assert_eq!((kind(&flags), &flags["data"]["supports_preview_metadata"]), ("feature_flags", &json!(true)));
    server.submit_with(&guide(), json!({"client_id": "c"}));
    let frames = socket.until_end();
    let at = frames.iter().position(|frame| kind(frame) == "binary").expect("a preview");
    assert_eq!((&frames[at]["data"], kind(&frames[at + 1])), (&json!(4), "progress"));
    let mut plain = Socket::open(&server, "d");
    server.submit_with(&guide(), json!({"client_id": "d", "extra_data": {"preview_method": "auto"}}));
    let frames = plain.until_end();
    let at = frames.iter().position(|frame| kind(frame) == "binary").expect("a preview");
    assert_eq!((&frames[at]["data"], kind(&frames[at - 1])), (&json!(1), "progress"));
}

#[test]
fn previews_asked_for_with_the_job_outlive_a_restart() {
    let mut server = Server::start();
    let more = json!({"client_id": "c", "extra_data": {"preview_method": "latent2rgb"}});
    let id = server.submit_with(&long(), more);
    server.wait_running(&id);
    server.crash_and_restart();
    let mut socket = Socket::open(&server, "c");
    let frames = std::iter::repeat_with(|| socket.next());
    let preview = frames.take(5000).find(|frame| kind(frame) == "binary").expect("a preview");
    assert_eq!(preview["data"], 1);
}

#[test]
fn both_sockets_of_a_client_receive_everything() {
    let server = Server::start();
    let mut first = Socket::open(&server, "c");
    first.next();
    let mut second = Socket::open(&server, "c");
    second.next();
    server.submit_with(&guide(), json!({"client_id": "c"}));
    let told = |socket: &mut Socket| {
        let frames = socket.until_end();
        let kinds = frames.iter().map(|frame| kind(frame).to_owned());
        // Those come when something is slow as well.
        kinds.filter(|kind| kind != "status" && kind != "progress_state").collect::<Vec<_>>()
    };
    let (first_told, second_told) = (told(&mut first), told(&mut second));
    assert!(first_told.iter().any(|kind| kind == "executed"), "{first_told:?}");
    assert_eq!(first_told, second_told);
    drop(first);
    server.submit_with(&guide(), json!({"client_id": "c"}));
    assert!(second.until_end().iter().any(|frame| kind(frame) == "executed"));
}

#[test]
fn a_busy_socket_is_never_silent_for_long() {
    let server = Server::start();
    let id = server.submit(&long());
    server.wait_running(&id);
    let mut socket = Socket::open(&server, "bystander");
    socket.next();
    let start = Instant::now();
    let frame = socket.next();
    assert!(kind(&frame) == "status" && start.elapsed() < Duration::from_secs(10), "{frame}");
}

#[test]
fn handshakes_need_the_token_and_an_upgrade() {
    let server = Server::start();
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(server.raw("GET", "/ws?clientId=c", &upgrade, b"").status, 401);
    assert_eq!(server.get("/ws").status, 400);
    assert_eq!(server.get(&format!("/ws?clientId={}", "x".repeat(300))).status, 400);
}

#[test]
fn frames_that_make_no_sense_are_ignored_and_huge_ones_end_the_socket() {
    let mut server = Server::start();
    let mut socket = Socket::open(&server, "c");
    socket.next();
    for text in ["", "{", "[1]", "null", "{\"type\": 5}", "\u{0}"] {
        socket.0.send(Message::text(text)).expect("sent");
    }
    socket.0.send(Message::binary(vec![0xff; 100])).expect("sent");
    server.post("/queue", &json!({}));
    assert_eq!(kind(&socket.next()), "status");
    // The server may hang up while it is being sent.
    let _ = socket.0.send(Message::binary(vec![0; 5 << 20]));
    let ended = (0..5).any(|_| !matches!(socket.0.read(), Ok(message) if !message.is_close()));
    assert!(ended && server.is_alive());
}
