//! Disks that fill up.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Server, TOKEN, guide, long};

const OPTIONS: [&str; 4] = ["--token", TOKEN, "--min-free-disk", "64KiB"];

/// A graph whose decoded frames take 4 MB.
fn large() -> Value {
    let mut graph = long();
    let size = &mut graph["50"]["inputs"];
    (size["generation_width"], size["generation_height"]) = (json!(128), json!(128));
    graph["52"]["inputs"]["steps"] = json!(30);
    graph
}

/// Fills the disk of `file` up and then frees so many bytes again.
fn fill(file: &Path, left: u64) {
    let mut ballast = File::create(file).expect("made");
    while ballast.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    let size = ballast.metadata().expect("its size").len();
    ballast.set_len(size.saturating_sub(left)).expect("cut");
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_job_that_fills_the_disk_fails_and_leaves_room_for_the_next() {
    let Some(server) = Server::on_small_disk(8, &OPTIONS) else { return };
    let id = server.submit(&large());
    wait_for(&server.data("work/1/checkpoint.safetensors"));
    fill(&server.data("input/ballast"), 2 << 20);
    let entry = server.wait(&id);
    let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one").clone();
    assert_eq!(last[0], "execution_error", "{last}");
    assert_eq!(last[1]["exception_type"], "DiskFull", "{last}");
    assert!(
        last[1]["exception_message"].as_str().expect("text").contains("disk is full; remove files"),
        "{last}"
    );
    assert!(!server.data("work/1").exists());
    assert_eq!(server.post("/interrupt", &json!({})).status, 200);
    let refused = server.post("/prompt", &json!({"prompt": large()}));
    assert_eq!((refused.status, refused.error_type().as_str()), (507, "disk_full"));
    let next = server.submit(&guide());
    assert_eq!(server.wait(&next)["status"]["completed"], true);
}

#[test]
fn a_server_starts_on_a_disk_that_its_last_job_filled() {
    let Some(mut server) = Server::on_small_disk(8, &OPTIONS) else { return };
    let id = server.submit(&long());
    let kept = server.data("work/1/checkpoint.safetensors");
    wait_for(&kept);
    server.crash();
    // As a job leaves it that is killed while its frames are decoded.
    std::fs::write(server.data("temp/old.png"), vec![0; 64 << 10]).expect("written");
    fill(&server.data("work/1/frames.rgb"), 0);
    server.start_again();
    assert!(kept.exists(), "what the job goes on from stays");
    server.wait_running(&id);
    assert_eq!(server.post("/interrupt", &json!({})).status, 200);
    assert_eq!(server.wait(&id)["status"]["messages"][2][0], "execution_interrupted");
}
