//! Crashes and shutdowns.

use std::time::Duration;

use serde_json::json;

use super::server::{Server, guide, long};

#[test]
fn what_was_accepted_survives_a_crash() {
    let mut server = Server::start();
    let done = server.submit(&guide());
    let before = server.wait(&done);
    let mut graph = guide();
    graph["52"]["inputs"]["steps"] = json!(60);
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
    assert!(time < Duration::from_secs(12), "{time:?}");
    server.start_again();
    server.wait_running(&id);
    server.post("/interrupt", &json!({}));
    assert_eq!(server.wait(&id)["status"]["status_str"], "error");
}
