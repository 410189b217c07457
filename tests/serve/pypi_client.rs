//! A client library from PyPI that knows nothing of this server (`tests/comfyui/pypi_client.py`): uploads, queues,
//! follows the WebSocket, downloads.

use std::process::Command;

use super::server::Server;
use crate::support::{repo_path, stderr, stdout};

/// Run by `make test-clients`, which installs the library.
#[test]
#[ignore = "needs packages from PyPI"]
fn an_independent_client_gets_its_video() {
    let python = std::env::var_os("WAN_RUN_CLIENT_PYTHON").expect("set by `make test-clients`");
    // The library puts it into an address, unescaped.
    let token = "plain-token-for-tests";
    let server = Server::with(&["--token", token]);
    let output = Command::new(python)
        .arg(repo_path("tests/comfyui/pypi_client.py"))
        .args([format!("http://{}", server.address()).as_str(), token])
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("WanVideo2_1_00001.mp4: "), "{}", stdout(&output));
    assert!(server.data("output/WanVideo2_1_00001.mp4").exists());
}
