//! Clients that take too much, and jobs that take too long.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{Server, TOKEN, exchange, guide, long, sample};
use crate::support::{Sandbox, stderr};

fn server(options: &[&str]) -> Server {
    Server::with(&[&["--token", TOKEN], options].concat())
}

/// Reads until the server hangs up, which it must do within 20 s.
fn read_to_end(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server keeps the connection"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn headers_and_bodies_that_do_not_arrive_are_not_waited_for() {
    let server = server(&["--request-time", "3s"]);
    let start = Instant::now();
    let mut silent = TcpStream::connect(server.address()).expect("a connection");
    let mut half_head = TcpStream::connect(server.address()).expect("a connection");
    half_head.write_all(b"GET /queue HTTP/1.1\r\nHost: h\r\nX-Slow: ").expect("sent");
    let mut half_body = TcpStream::connect(server.address()).expect("a connection");
    let head = format!(
        "POST /prompt HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    );
    half_body.write_all(head.as_bytes()).expect("sent");
    let refused = read_to_end(&mut half_body);
    assert!(refused.starts_with("HTTP/1.1 408") && refused.contains("\"type\":\"timeout\""), "{refused}");
    let answer = read_to_end(&mut half_head);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(read_to_end(&mut silent), "", "the server hangs up");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(server.get("/queue").status, 200);
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_is_free() {
    let server = server(&["--max-connections", "3"]);
    let held: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            // An answer shows that the server has taken it.
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
            stream.read_exact(&mut [0; 12]).expect("an answer");
            stream
        })
        .collect();
    let mut fourth = TcpStream::connect(server.address()).expect("a connection");
    let _ = fourth.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(read_to_end(&mut fourth), "", "the server hangs up");
    drop(held);
    let start = Instant::now();
    let head = b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    while super::server::try_exchange(server.address(), head, b"").is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "places are not given back");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(exchange(server.address(), head, b"").status, 200);
}

#[test]
fn a_job_that_takes_too_long_ends_as_an_error() {
    let server = server(&["--job-time", "5s"]);
    let (id, next) = (server.submit(&long()), server.submit(&guide()));
    let entry = server.wait(&id);
    let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one").clone();
    assert_eq!((&last[0], &last[1]["exception_type"]), (&json!("execution_error"), &json!("TimeLimit")));
    assert!(last[1]["exception_message"].as_str().expect("text").contains("longer than the 5 s"), "{last}");
    assert_eq!(server.wait(&next)["status"]["completed"], true);
}

#[test]
fn a_job_that_does_not_fit_into_memory_ends_as_an_error() {
    let server = server(&["--max-ram", "70MiB"]);
    let id = server.submit(&guide());
    let entry = server.wait(&id);
    let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one").clone();
    assert_eq!(
        (&last[0], &last[1]["exception_type"]),
        (&json!("execution_error"), &json!("torch.OutOfMemoryError"))
    );
    let text = last[1]["exception_message"].as_str().expect("text");
    assert!(text.starts_with("not enough memory: ") && text.contains("of which there is 70.0 MiB"), "{text}");
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
}

#[test]
fn a_full_disk_refuses_jobs_and_uploads_and_says_why() {
    for (options, reason) in
        [(["--min-free-disk", "900PB"], "--min-free-disk"), (["--max-data", "1KB"], "--max-data")]
    {
        let server = server(&options);
        let refusals = [
            server.post("/prompt", &json!({"prompt": guide()})),
            server.upload("girl.png", &sample(), &[]),
            server.send("POST", "/userdata/workflows%2Fmine.json", &[], b"{}"),
        ];
        for refused in refusals {
            assert_eq!((refused.status, refused.error_type().as_str()), (507, "disk_full"));
            assert!(refused.text().contains(reason), "{}", refused.text());
        }
        assert_eq!(server.post("/prompt", &json!({"prompt": {}})).status, 400, "what is wrong is told first");
        assert_eq!(server.get("/queue").json()["queue_pending"], json!([]));
    }
}

#[test]
fn a_job_is_refused_whose_frames_do_not_fit() {
    let server = server(&["--max-data", "4MB"]);
    // 81 frames of 64x64 take 1 MB, of 128x128 4 MB.
    let mut graph = long();
    server.submit(&graph);
    graph["50"]["inputs"]["generation_width"] = json!(128);
    graph["50"]["inputs"]["generation_height"] = json!(128);
    let refused = server.post("/prompt", &json!({"prompt": graph}));
    assert_eq!((refused.status, refused.error_type().as_str()), (507, "disk_full"));
    assert!(refused.text().contains("expected at most 3 MiB with 4 MiB for this"), "{}", refused.text());
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    for (option, value, reason) in [
        ("--job-time", "0s", "expected a time above zero"),
        ("--job-time", "-1h", "expected a time above zero"),
        ("--request-time", "5", "expected a time above zero"),
        ("--max-connections", "0", "found 0, expected 1 to 100000"),
        ("--min-free-disk", "much", "invalid value"),
        ("--max-ram", "much", "max-ram"),
    ] {
        let output = sandbox.run(&["serve", "--model", "tiny", &format!("{option}={value}")]);
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}
