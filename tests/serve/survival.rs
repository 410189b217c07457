//! Crashes and shutdowns.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use wan_media::probe::probe;

use super::server::{Server, TOKEN, guide, long, try_exchange};

const KILLS: u64 = 30;

#[test]
fn what_was_accepted_survives_a_crash() {
    let mut server = Server::start();
    let done = server.submit(&guide());
    let before = server.wait(&done);
    let mut graph = guide();
    graph["52"]["inputs"]["steps"] = json!(300);
    let running = server.submit(&graph);
    let pending = server.submit(&guide());
    server.wait_running(&running);
    server.crash_and_restart();
    assert_eq!(server.get(&format!("/history/{done}")).json()[&done], before);
    for (id, file) in [(&running, "WanVideo2_1_00002.mp4"), (&pending, "WanVideo2_1_00003.mp4")] {
        let entry = server.wait(id);
        assert_eq!(entry["status"]["completed"], true, "{entry}");
        assert_eq!(entry["outputs"]["54"]["gifs"][0]["filename"], file);
    }
    assert_eq!(server.get("/history").json().as_object().expect("entries").len(), 3);
}

#[test]
fn sigterm_ends_the_server_and_not_the_job() {
    let mut server = Server::start();
    let id = server.submit(&long());
    server.wait_running(&id);
    let (code, time) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(time < Duration::from_secs(60), "{time:?}");
    server.start_again();
    server.wait_running(&id);
    server.post("/interrupt", &json!({}));
    assert_eq!(server.wait(&id)["status"]["status_str"], "error");
}

#[test]
fn the_end_of_a_terminal_is_survived_by_who_was_told_to() {
    let server = Server::after("trap '' HUP", &["--token", TOKEN]);
    server.signal("HUP");
    // It would take a moment to stop.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.get("/health").status, 200);
    let mut server = Server::start();
    assert_eq!(server.stop_by("HUP").0, Some(0));
}

/// A prompt to a server that may be killed at any moment; whether it was accepted.
fn try_submit(address: &str, prompt_id: &str, seed: u64) -> Option<bool> {
    let mut graph = guide();
    graph["52"]["inputs"]["seed"] = json!(seed);
    graph["52"]["inputs"]["steps"] = json!(4);
    let body = json!({"prompt": graph, "prompt_id": prompt_id, "client_id": "stream"}).to_string();
    let head = format!(
        "POST /prompt HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    Some(try_exchange(address, head.as_bytes(), body.as_bytes())?.status == 200)
}

/// Jobs are submitted while the server is killed at random moments, in the middle of a submission, of a step or of a
/// start. Each that was accepted must end once, completed, with a file of its own that is whole.
#[test]
fn thirty_kills_in_a_stream_of_jobs_lose_and_repeat_nothing() {
    let mut server = Server::start();
    let mut accepted: Vec<String> = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..KILLS {
        let address = server.address().to_owned();
        let (tell, told) = mpsc::channel();
        let stream = std::thread::spawn(move || {
            for n in 0..3 {
                let id = format!("job-{round}-{n}");
                match try_submit(&address, &id, round * 3 + n) {
                    Some(taken) => tell.send((id, taken)).expect("somebody listens"),
                    None => return,
                }
            }
        });
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 600));
        // A job that is killed five times before its first step is given up: slow machines get their time.
        if round % 3 == 0 {
            while !stream.is_finished() {
                std::thread::sleep(Duration::from_millis(10));
            }
            server.wait(&format!("job-{round}-0"));
        }
        server.crash_and_restart();
        stream.join().expect("submitted");
        for (id, taken) in told {
            assert!(taken, "{id} was refused");
            accepted.push(id);
        }
    }
    assert!(accepted.len() > 20, "{accepted:?}");
    let mut files = HashSet::new();
    for id in &accepted {
        let entry = server.wait(id);
        assert_eq!(entry["status"]["completed"], true, "{id}: {}", entry["status"]);
        let name = entry["outputs"]["54"]["gifs"][0]["filename"].as_str().expect("a name").to_owned();
        assert_eq!(
            probe(&server.data(&format!("output/{name}"))).expect("a whole video").frames,
            5,
            "{id}: {name}"
        );
        assert!(files.insert(name), "{id} shares its file with another job");
    }
    // What was killed before its answer may have been accepted as well; nothing else is there, and nothing twice.
    while server.get("/prompt").json()["exec_info"]["queue_remaining"] != 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let history = server.get("/history").json();
    let entries = history.as_object().expect("entries");
    assert!(accepted.iter().all(|id| entries.contains_key(id)));
    let told: HashSet<&Value> =
        entries.values().map(|entry| &entry["outputs"]["54"]["gifs"][0]["filename"]).collect();
    assert_eq!(told.len(), entries.len(), "two jobs with one file");
    let videos = std::fs::read_dir(server.data("output")).expect("outputs").flatten();
    let videos = videos.filter(|file| file.path().extension().is_some_and(|extension| extension == "mp4"));
    assert_eq!(videos.count(), entries.len(), "files that nobody was told of");
}
