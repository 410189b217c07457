//! A running server, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{repo_path, sample_image};

pub const TOKEN: &str = "$2b$12$token.for/tests";

/// Time in which a small job ends on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The real binary with a data folder of its own. Killed when it is dropped.
pub struct Server {
    dir: TempDir,
    process: Child,
    address: String,
    options: Vec<String>,
    token: Option<String>,
    /// Shell commands before each start.
    before: &'static str,
    small_disk: Option<SmallDisk>,
}

impl Server {
    /// A server with the tests' token.
    pub fn start() -> Self {
        Self::with(&["--token", TOKEN])
    }

    /// A server with these options.
    pub fn with(options: &[&str]) -> Self {
        Self::launched(tempfile::tempdir().expect("a folder"), options, "", None)
    }

    /// A server that a shell starts after these commands.
    pub fn after(before: &'static str, options: &[&str]) -> Self {
        Self::launched(tempfile::tempdir().expect("a folder"), options, before, None)
    }

    /// A server whose data folder is a disk of so many MiB; `None`, with a note, where this process may not mount one.
    pub fn on_small_disk(mib: usize, options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = SmallDisk::mount(dir.path().join("data"), mib)?;
        Some(Self::launched(dir, options, "", Some(disk)))
    }

    fn launched(dir: TempDir, options: &[&str], before: &'static str, small_disk: Option<SmallDisk>) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let token = options.iter().position(|o| o == "--token").map(|at| options[at + 1].clone());
        let (process, address) = launch(dir.path(), &options, before);
        Self { dir, process, address, options, token, before, small_disk }
    }

    /// Kills the process, as a power cut would, and starts another one on the same folder.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.start_again();
    }

    /// Kills the process.
    pub fn crash(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }

    /// Sends the process a signal: `TERM`.
    pub fn signal(&self, signal: &str) {
        crate::support::signal(self.process.id(), signal);
    }

    /// Sends SIGTERM; the exit code and the time it took.
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        self.stop_by("TERM")
    }

    /// Sends a signal that ends the process, such as `HUP`; the exit code and the time it took.
    pub fn stop_by(&mut self, signal: &str) -> (Option<i32>, Duration) {
        let start = Instant::now();
        self.signal(signal);
        let status = self.process.wait().expect("ended");
        (status.code(), start.elapsed())
    }

    pub fn start_again(&mut self) {
        (self.process, self.address) = launch(self.dir.path(), &self.options, self.before);
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A path in the data folder.
    pub fn data(&self, path: &str) -> PathBuf {
        self.dir.path().join("data").join(path)
    }

    /// The folder around the data folder.
    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Main memory that the process holds, in MiB; 0 where the system does not say.
    pub fn memory_mib(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
        kib.unwrap_or(0) / 1024
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().expect("asked").is_none()
    }

    /// A request with these headers and no others but `Host`.
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        exchange(&self.address, head.as_bytes(), body)
    }

    /// A request with the token.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut all = headers.to_vec();
        all.extend(bearer.as_ref().map(|bearer| ("Authorization", bearer.as_str())));
        self.raw(method, path, &all, body)
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    /// Uploads a file as `girl.png` would be.
    pub fn upload(&self, name: &str, content: &[u8], fields: &[(&str, &str)]) -> Response {
        let mut body = Vec::new();
        for (field, value) in fields {
            let part = format!("--B\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
            body.extend(part.as_bytes());
        }
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n");
        body.extend(head.as_bytes());
        body.extend(b"Content-Type: image/png\r\n\r\n");
        body.extend(content);
        body.extend(b"\r\n--B--\r\n");
        self.send("POST", "/upload/image", &[("Content-Type", "multipart/form-data; boundary=B")], &body)
    }

    /// Queues a graph, which must be taken; its id.
    pub fn submit(&self, graph: &Value) -> String {
        self.submit_with(graph, json!({}))
    }

    /// Queues a graph with further keys.
    pub fn submit_with(&self, graph: &Value, more: Value) -> String {
        let mut body = json!({"prompt": graph});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let response = self.post("/prompt", &body);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()["prompt_id"].as_str().expect("an id").to_owned()
    }

    /// The history entry of a job, once there is one.
    pub fn wait(&self, id: &str) -> Value {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let history = self.get(&format!("/history/{id}")).json();
            if let Some(entry) = history.get(id) {
                return entry.clone();
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("{id} is not in the history after {PATIENCE:?}");
    }

    /// Waits until a job runs.
    pub fn wait_running(&self, id: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let queue = self.get("/queue").json();
            if ids(&queue["queue_running"]).iter().any(|running| running == id) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{id} does not run after {PATIENCE:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Before its folder is removed.
        self.small_disk = None;
    }
}

/// A disk in memory, there until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, mib: usize) -> Option<Self> {
        std::fs::create_dir(&folder).expect("made");
        let options = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&folder).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: a small disk can be mounted by root alone");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The ids of queue items.
pub fn ids(items: &Value) -> Vec<String> {
    let items = items.as_array().expect("a list");
    items.iter().map(|item| item[1].as_str().expect("an id").to_owned()).collect()
}

/// The guide's graph at a small size: 64x64, 5 frames, 2 steps.
pub fn guide() -> Value {
    let text = std::fs::read_to_string(repo_path("workflows/wanx-21.api.json")).expect("the workflow");
    let mut graph: Value = serde_json::from_str(&text).expect("JSON");
    graph["42"]["inputs"]["image"] = json!("sample.png");
    let size = &mut graph["50"]["inputs"];
    (size["generation_width"], size["generation_height"], size["num_frames"]) =
        (json!(64), json!(64), json!(5));
    let sampler = &mut graph["52"]["inputs"];
    (sampler["steps"], sampler["seed"]) = (json!(2), json!(7));
    graph
}

/// The guide's graph, long enough to be caught running.
pub fn long() -> Value {
    let mut graph = guide();
    graph["52"]["inputs"]["steps"] = json!(1000);
    graph["50"]["inputs"]["num_frames"] = json!(81);
    graph
}

/// The sample image.
pub fn sample() -> Vec<u8> {
    std::fs::read(sample_image()).expect("the sample image")
}

/// A PNG of one colour, different for each `shade`.
pub fn picture(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = image::RgbImage::from_pixel(64, 64, image::Rgb([shade, 100, 50]));
    let mut out = std::io::Cursor::new(&mut bytes);
    picture.write_to(&mut out, image::ImageFormat::Png).expect("a PNG");
    bytes
}

fn launch(dir: &Path, options: &[String], before: &str) -> (Child, String) {
    let mut process = Command::new("sh")
        .args(["-c", &format!("{before}\nexec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_wan-run")])
        .args(["serve", "--model", "tiny", "--port", "0", "--data-dir"])
        .arg(dir.join("data"))
        .args(options)
        .current_dir(dir)
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("HF_HOME", dir.join("hf"))
        .env("WAN_RUN_LOG", "warn")
        .env_remove("WAN_RUN_TOKEN")
        .env_remove("WAN_RUN_MODEL")
        .env_remove("WAN_RUN_MODELS_DIR")
        .stdout(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let line = lines.next().expect("a line").expect("text");
    let address = line.strip_prefix("address: http://").expect("the address").to_owned();
    (process, address)
}

/// An answer.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    /// The type of the error in the body, which must have the form of all errors.
    pub fn error_type(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        for key in ["message", "details"] {
            assert!(error[key].is_string(), "{key} in {body}");
        }
        assert!(error["extra_info"].is_object() && body["node_errors"].is_object(), "{body}");
        error["type"].as_str().expect("a type").to_owned()
    }
}

/// Sends bytes as they are and reads until the server closes, which must have answered.
pub fn exchange(address: &str, head: &[u8], body: &[u8]) -> Response {
    try_exchange(address, head, body).expect("an answer")
}

/// [`exchange`] with a server that may go away.
pub fn try_exchange(address: &str, head: &[u8], body: &[u8]) -> Option<Response> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // A server that has refused need not read the rest.
    let _ = stream.write_all(head).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Some(Response { status: status.parse().expect("a number"), headers, body: answer[end + 4..].to_vec() })
}
