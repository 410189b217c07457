//! Thousands of requests that make no sense: 4xx, never 5xx, never a file outside of the data folder, and no more
//! memory than before.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Server, TOKEN, guide, sample};

/// Random bodies for `/prompt`.
const PROMPTS: usize = 10_000;

/// Requests of each other kind: forms, paths, bodies of control endpoints.
const EACH: usize = 700;

/// What the process may hold in addition afterwards, in MiB: the allocator keeps some of what it had.
const GROWTH: usize = 150;

/// A small generator of numbers (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    fn value(&mut self, depth: usize) -> Value {
        let leaves = [
            json!(null),
            json!(true),
            json!(-1),
            json!(u64::MAX),
            json!(1e308),
            json!(""),
            json!("\u{0}"),
            json!("../../etc/passwd"),
            json!(["52", 0]),
            json!(["52", -1]),
            json!(["x", 99]),
            json!([]),
            json!({}),
            json!({"__value__": [1]}),
            json!("x".repeat(3000)),
            json!("NaN"),
            json!("%2e%2e/x"),
            json!("C:\\x"),
        ];
        match (depth, self.below(6)) {
            (1.., 0) => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            (1.., 1) => (0..self.below(4)).map(|n| (format!("k{n}"), self.value(depth - 1))).collect(),
            _ => self.pick(&leaves).clone(),
        }
    }

    /// A string of parts that lead elsewhere, or break parsers.
    fn name(&mut self) -> String {
        let parts = [
            "..",
            "/",
            "\\",
            "%2e%2e",
            "%2f",
            "%5c",
            "%00",
            "a",
            "etc",
            "passwd",
            " [output]",
            ".",
            "~",
            "C:",
            "ü",
            "+",
            "%",
        ];
        (0..1 + self.below(6)).map(|_| *self.pick(&parts)).collect()
    }
}

/// The guide's graph with one thing wrong.
fn graph(random: &mut Random) -> Value {
    let mut graph = guide();
    let ids: Vec<String> = graph.as_object().expect("nodes").keys().cloned().collect();
    let id = random.pick(&ids).clone();
    match random.below(5) {
        0 => graph[&id] = random.value(3),
        1 => graph[&id]["class_type"] = random.value(1),
        2 => graph[&id]["inputs"] = random.value(2),
        3 => drop(graph.as_object_mut().expect("nodes").remove(&id)),
        _ => {
            let names: Vec<String> =
                graph[&id]["inputs"].as_object().expect("inputs").keys().cloned().collect();
            graph[&id]["inputs"][random.pick(&names)] = random.value(2);
        }
    }
    graph
}

fn prompt(random: &mut Random) -> Vec<u8> {
    let mut body = match random.below(6) {
        0 => return random.bytes(300),
        1 => random.value(4),
        2 => json!({"prompt": random.value(4)}),
        _ => json!({"prompt": graph(random)}),
    };
    for key in ["client_id", "prompt_id", "number", "front", "extra_data", "partial_execution_targets"] {
        if random.below(8) == 0 && body.is_object() {
            body[key] = random.value(2);
        }
    }
    let mut bytes = body.to_string().into_bytes();
    if random.below(4) == 0 {
        let cut = random.below(bytes.len());
        bytes.truncate(cut);
    }
    bytes
}

fn form(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..1 + random.below(4) {
        let field = *random.pick(&["image", "type", "subfolder", "overwrite", "x"]);
        let filename =
            if random.below(2) == 0 { format!("; filename=\"{}\"", random.name()) } else { String::new() };
        body.extend(
            format!("--B\r\nContent-Disposition: form-data; name=\"{field}\"{filename}\r\n\r\n").as_bytes(),
        );
        match random.below(3) {
            0 => body.extend(sample()),
            1 => body.extend(random.name().as_bytes()),
            _ => body.extend(random.bytes(200)),
        }
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    if random.below(3) == 0 {
        let cut = random.below(body.len());
        body.truncate(cut);
    }
    body
}

/// All files around the data folder, and those in it that no upload may touch.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // Uploads land here, and the queue keeps what it was given.
        let may_grow = ["input", "temp", "output", "user", "work"]
            .iter()
            .any(|name| path.ends_with(format!("data/{name}")));
        if path.is_dir() && !may_grow {
            found.extend(files(&path));
        } else if !path.to_string_lossy().contains("queue.") {
            found.insert(path);
        }
    }
    found
}

/// A server that takes jobs and gets to none of them, with the files around it. Graphs that turn out to be right stay
/// in the queue, behind a job that takes for ever.
fn busy_server() -> (Server, BTreeSet<PathBuf>) {
    let server = Server::start();
    let blocker = server.submit_with(&super::server::long(), json!({"number": -1e9}));
    server.wait_running(&blocker);
    let before = files(server.outside());
    (server, before)
}

fn assert_unharmed(mut server: Server, before: &BTreeSet<PathBuf>) {
    assert!(server.is_alive());
    assert_eq!(files(server.outside()), *before, "files where none should be");
    assert_eq!(server.get("/queue").status, 200);
}

#[test]
fn ten_thousand_random_prompts_do_no_harm() {
    let (server, before) = busy_server();
    let mut random = Random(5);
    let mut memory = 0;
    for n in 0..PROMPTS {
        let body = prompt(&mut random);
        let answer = server.send("POST", "/prompt", &[], &body);
        let text = || String::from_utf8_lossy(&body).into_owned();
        assert!(
            [200, 400, 413, 429].contains(&answer.status),
            "prompt {n}: {} for {}",
            answer.status,
            text()
        );
        let says = answer.json();
        assert_eq!(says.get("error").is_some(), answer.status != 200, "{says} for {}", text());
        if n % 50 == 49 {
            server.post("/queue", &json!({"clear": true}));
        }
        if n == PROMPTS / 10 {
            memory = server.memory_mib();
        }
    }
    let after = server.memory_mib();
    assert!(after < memory + GROWTH, "memory grew from {memory} to {after} MiB");
    assert_unharmed(server, &before);
}

#[test]
fn random_forms_paths_and_bodies_do_no_harm() {
    let (server, before) = busy_server();
    let mut random = Random(7);
    for n in 0..EACH {
        let body = form(&mut random);
        let boundary =
            *random.pick(&["multipart/form-data; boundary=B", "multipart/form-data", "text/plain", ""]);
        let answer = server.send("POST", "/upload/image", &[("Content-Type", boundary)], &body);
        assert!([200, 400, 413].contains(&answer.status), "upload {n}: {} {}", answer.status, answer.text());

        let name = random.name().replace(' ', "%20");
        let file = name.replace('/', "%2F");
        let (kind, path) = match random.below(8) {
            0 => ("GET", format!("/view?filename={name}&subfolder={}", random.name().replace(' ', "%20"))),
            1 => ("GET", format!("/userdata/{file}")),
            2 => ("POST", format!("/userdata/{file}")),
            3 => ("GET", format!("/{name}")),
            4 => ("GET", format!("/models/{name}")),
            5 => ("DELETE", format!("/userdata/{file}")),
            6 => ("POST", format!("/userdata/workflows%2Fwanx-21.json/move/{file}")),
            _ => ("GET", format!("/view_metadata/vae?filename={name}")),
        };
        let answer = server.send(kind, &path, &[], b"");
        assert!(answer.status < 500, "{kind} {path}: {} {}", answer.status, answer.text());

        // Not `/interrupt`: what it is sent may make it stop the job that everything waits for.
        let control = *random.pick(&[
            "/queue",
            "/history",
            "/free",
            "/settings",
            "/settings/x",
            "/users",
            "/wan-run/convert",
        ]);
        let answer = server.send("POST", control, &[], &random.value(3).to_string().into_bytes());
        assert!(answer.status < 500, "{control}: {} {}", answer.status, answer.text());
        server.post("/settings", &json!({}));
    }
    assert_unharmed(server, &before);
}

/// Bytes that are no HTTP at all, or cut or swollen HTTP: 4xx, or no answer.
#[test]
fn noise_on_the_connection_does_no_harm() {
    let (server, before) = busy_server();
    let mut random = Random(8);
    for _ in 0..EACH {
        let mut head = match random.below(4) {
            0 => random.bytes(400),
            1 => format!("GET /{} HTTP/1.{}\r\n", random.name(), random.below(12)).into_bytes(),
            2 => format!("{} /queue HTTP/1.1\r\nContent-Length: {}\r\n", random.name(), random.name())
                .into_bytes(),
            _ => format!("GET /queue HTTP/1.1\r\nHost: h\r\nX-Pad: {}\r\n", "p".repeat(random.below(90_000)))
                .into_bytes(),
        };
        head.extend(b"Connection: close\r\n\r\n");
        if let Some(answer) = hang_up_after(server.address(), &head) {
            assert!((400..500).contains(&answer), "{answer} for {:?}", String::from_utf8_lossy(&head));
        }
    }
    assert_unharmed(server, &before);
}

/// Sends bytes and says nothing more; the status of the answer, if there is one.
fn hang_up_after(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    // The server may hang up at any byte.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// Random bytes where WebSocket frames are expected, some behind a header that promises a frame.
#[test]
fn sockets_that_send_noise_are_dropped() {
    let mut server = Server::start();
    let mut random = Random(6);
    for n in 0..200 {
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        let handshake = format!(
            "GET /ws?clientId=noise{}&token={TOKEN} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            n % 7
        );
        stream.write_all(handshake.as_bytes()).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 101");
        if random.below(2) == 0 {
            // A masked text or binary frame that is longer than what follows.
            let _ = stream.write_all(&[*random.pick(&[0x81, 0x82, 0x01, 0xc1, 0x8f]), 0xfe, 0xff, 0xff]);
        }
        // The server may hang up at any byte.
        let _ = stream.write_all(&random.bytes(2000));
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        let _ = stream.read(&mut [0; 1000]);
    }
    assert!(server.is_alive());
    assert_eq!(server.get("/queue").status, 200);
}
