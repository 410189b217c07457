//! The guide's own script (`tests/comfyui/i2v_client.py`), unchanged but for the address and the token that it asks
//! its user to fill in. Skipped, with a note, where Python or its `requests` are missing.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use wan_media::probe::probe;

use super::server::{Server, TOKEN, picture};
use crate::support::repo_path;

/// The script's request at a size that takes seconds: its last line but one names width, height and frames.
const SMALL: (&str, &str) = ("10, 6, 512, 512, 81)", "4, 6, 64, 64, 81)");

fn has_python() -> bool {
    let imported = Command::new("python3").args(["-c", "import requests"]).stderr(Stdio::null()).status();
    let found = imported.is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "python3-requests is part of `make deps`");
        eprintln!("skipped: python3 with requests is not here");
    }
    found
}

/// The script in a folder of its own, with its placeholders filled in and, to save time, further replacements.
fn script(folder: &Path, server: &Server, token: &str, more: &[(&str, &str)]) -> Command {
    let mut text = std::fs::read_to_string(repo_path("tests/comfyui/i2v_client.py")).expect("the script");
    let filled = [("Enter your server address", server.address()), ("Enter your token", token)];
    for (placeholder, value) in filled.iter().chain(more) {
        assert_eq!(text.matches(placeholder).count(), 1, "{placeholder}");
        text = text.replace(placeholder, value);
    }
    std::fs::write(folder.join("client.py"), text).expect("written");
    let mut command = Command::new("python3");
    command.arg("-u").arg("client.py").current_dir(folder).env("NO_PROXY", "127.0.0.1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> (bool, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn assert_video(folder: &Path, side: usize) {
    let video = folder.join("i2v_output.mp4");
    let facts = probe(&video).expect("a playable video");
    assert_eq!((facts.width as usize, facts.height as usize, facts.frames as usize), (side, side, 81));
    assert_eq!((facts.codec.as_str(), facts.fps), ("h264", (16, 1)));
}

#[test]
fn it_gets_its_video() {
    if !has_python() {
        return;
    }
    let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("girl.png"), picture(1)).expect("written");
    let (ok, text) = finish(script(folder.path(), &server, TOKEN, &[SMALL]).spawn().expect("python3"));
    assert!(ok && text.contains("Video downloaded successfully!"), "{text}");
    assert_video(folder.path(), 64);
}

/// The request as it stands: 512x512, 81 frames, 10 steps. Takes minutes; run by `.ci/run`.
#[test]
#[ignore = "takes minutes"]
fn it_gets_its_own_request() {
    if !has_python() {
        return;
    }
    let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("girl.png"), picture(1)).expect("written");
    let (ok, text) = finish(script(folder.path(), &server, TOKEN, &[]).spawn().expect("python3"));
    assert!(ok && text.contains("Video downloaded successfully!"), "{text}");
    assert_video(folder.path(), 512);
}

#[test]
fn it_shows_why_it_is_refused_and_stops_without_an_image() {
    if !has_python() {
        return;
    }
    let (server, folder) = (Server::start(), tempfile::tempdir().expect("a folder"));
    let (ok, text) = finish(script(folder.path(), &server, TOKEN, &[]).spawn().expect("python3"));
    assert!(ok && text.contains("Image file does not exist: girl.png"), "{text}");
    std::fs::write(folder.path().join("girl.png"), picture(1)).expect("written");
    let (_, text) = finish(script(folder.path(), &server, "wrong-token", &[]).spawn().expect("python3"));
    assert!(text.contains("Authentication required."), "{text}");
}

#[test]
fn it_gets_its_video_from_a_server_that_was_killed_half_way() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // The address has to be the same after the restart: a free port, taken by name.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut server = Server::with(&["--token", TOKEN, "--port", &port.to_string()]);
    std::fs::write(folder.path().join("girl.png"), picture(1)).expect("written");
    let slow = ("10, 6, 512, 512, 81)", "200, 6, 64, 64, 81)");
    let child = script(folder.path(), &server, TOKEN, &[slow]).spawn().expect("python3");
    let id = loop {
        let queue = server.get("/queue").json();
        if let Some(item) = queue["queue_running"].as_array().and_then(|items| items.first()) {
            break item[1].as_str().expect("an id").to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.get(&format!("/history/{id}")).json().get(&id).is_none(), "it was to be killed half-way");
    server.crash_and_restart();
    let (ok, text) = finish(child);
    assert!(ok && text.contains("Video downloaded successfully!"), "{text}");
    assert_video(folder.path(), 64);
}
