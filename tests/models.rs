//! `wan-run models` against a hub on the loopback device.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub_server::{COMMIT, HubServer, Served, sha256};
use crate::support::{Sandbox, assert_fails, stderr, stdout};

const DIT: &str = "wan-test/video/sub/dit.safetensors";
const VAE: &str = "wan-test/video/vae.safetensors";

/// Bytes without a pattern that a wrong offset could hide in.
fn noise(seed: u64, length: usize) -> Arc<Vec<u8>> {
    let mut state = seed | 1;
    let next = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    });
    Arc::new(next.take(length).collect())
}

/// A hub with the files of one model, and a folder with its description, `m.toml`.
struct Scene {
    sandbox: Sandbox,
    hub: HubServer,
    dit: Arc<Vec<u8>>,
    vae: Arc<Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            sandbox: Sandbox::new(),
            hub: HubServer::start(),
            dit: noise(1, 600_001),
            vae: noise(2, 100_000),
        };
        scene.hub.put(DIT, Served { bytes: scene.dit.clone(), ..Served::default() });
        scene.hub.put(VAE, Served { bytes: scene.vae.clone(), ..Served::default() });
        let bytes = scene.dit.len();
        scene.describe(bytes as u64, &sha256(&scene.dit));
        scene
    }

    /// Writes the description; the VAE is described without length and hash.
    fn describe(&self, dit_bytes: u64, dit_sha256: &str) {
        let text = format!(
            "name = \"m\"\nsummary = \"a test\"\nmodel_type = \"t2v\"\nlicense = \"none\"\n\
             [files.dit]\nrepo = \"wan-test/video\"\npath = \"sub/dit.safetensors\"\nfolder = \"diffusion_models\"\n\
             bytes = {dit_bytes}\nsha256 = \"{dit_sha256}\"\n\
             [files.vae]\nrepo = \"wan-test/video\"\npath = \"vae.safetensors\"\nfolder = \"vae\"\n\
             [files.text_encoder]\npath = \"tiny/umt5.safetensors\"\nembedded = true\n\
             [files.tokenizer]\npath = \"tiny/tokenizer.json\"\nembedded = true\n\
             [defaults]\nwidth = 64\nheight = 64\nframes = 5\nfps = 16\nsteps = 2\ncfg = 6.0\nshift = 5.0\n\
             scheduler = \"dpm++\"\n"
        );
        std::fs::write(self.sandbox.path("m.toml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command();
        command
            .arg("models")
            .args(args)
            .env("HF_ENDPOINT", &self.hub.endpoint)
            .env("HF_HOME", self.sandbox.path("hf"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("wan-run starts")
    }

    fn pull(&self) -> Output {
        self.run(&["pull", "m.toml"])
    }

    fn link(&self, file: &str) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT).join(file)
    }

    fn repo(&self) -> PathBuf {
        self.sandbox.path("hf/hub/models--wan-test--video")
    }

    /// Asserts that whatever is visible is right.
    fn assert_nothing_wrong_is_visible(&self) {
        for (file, bytes) in [("sub/dit.safetensors", &self.dit), ("vae.safetensors", &self.vae)] {
            if let Ok(found) = std::fs::read(self.link(file)) {
                assert!(
                    found == **bytes,
                    "{file} is visible with {} bytes that are not its own",
                    found.len()
                );
            }
        }
    }

    /// Asserts that a pull succeeds and both files are whole, by our reading and by `verify`.
    fn assert_pull_ends_well(&self) -> Output {
        let output = self.pull();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(std::fs::read(self.link("sub/dit.safetensors")).unwrap() == *self.dit);
        assert!(std::fs::read(self.link("vae.safetensors")).unwrap() == *self.vae);
        let verified = self.run(&["verify", "m.toml"]);
        assert!(verified.status.success(), "{}", stdout(&verified));
        assert_eq!(stdout(&verified).matches("length and sha256").count(), 2, "{}", stdout(&verified));
        assert_eq!(self.partials(), Vec::<String>::new());
        output
    }

    fn partials(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.repo().join("blobs")).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.ends_with(".incomplete")).collect()
    }

    fn assert_not_visible(&self) {
        assert!(!self.link("sub/dit.safetensors").exists());
        assert_fails(&self.run(&["path", "m.toml"]), 1, "`wan-run models pull m.toml`");
    }
}

#[test]
fn a_pull_fills_the_cache_and_the_registry_finds_it() {
    let scene = Scene::new();
    scene.assert_not_visible();
    let output = scene.command(&["pull", "m.toml"]).env("HF_TOKEN", "secret").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(scene.hub.requests(false).iter().all(|r| r.contains("Bearer secret")));
    let storage = scene.hub.requests(true);
    assert!(!storage.is_empty() && storage.iter().all(|r| !r.contains("secret")), "the token left the hub");
    scene.assert_pull_ends_well();
    assert_eq!(scene.hub.requests(true).len(), storage.len(), "a second pull fetches nothing");
    assert_eq!(std::fs::read_to_string(scene.repo().join("refs/main")).unwrap(), COMMIT);
    let blob = scene.repo().join("blobs").join(sha256(&scene.dit));
    assert_eq!(scene.link("sub/dit.safetensors").canonicalize().unwrap(), blob.canonicalize().unwrap());
    let paths = stdout(&scene.run(&["path", "m.toml"]));
    assert!(paths.contains(&format!("vae\t{}", scene.link("vae.safetensors").display())), "{paths}");
    let offline = scene.run(&["pull", "--offline", "m.toml"]);
    assert!(offline.status.success(), "{}", stderr(&offline));

    // Bits that rot are found, and a file of the wrong length is fetched anew.
    let mut rotten = (*scene.dit).clone();
    rotten[300_000] ^= 1;
    std::fs::write(&blob, rotten).unwrap();
    let verified = scene.run(&["verify", "m.toml"]);
    assert_fails(&verified, 1, "1 of the files are wrong");
    assert!(stdout(&verified).contains("m dit: wrong, "), "{}", stdout(&verified));
    std::fs::write(&blob, b"short").unwrap();
    scene.assert_pull_ends_well();

    let removed = stdout(&scene.run(&["remove", "m.toml"]));
    assert!(removed.contains("freed 683.6 KiB"), "{removed}");
    assert!(!blob.exists());
    scene.assert_not_visible();
}

#[test]
fn progress_as_json_is_one_object_a_line() {
    let scene = Scene::new();
    let output = scene.run(&["pull", "m.toml", "--progress", "json"]);
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
    let events: Vec<serde_json::Value> =
        stdout(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |event: &str| events.iter().filter(|e| e["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("started").len(), 2);
    assert_eq!(of("started")[0]["total"], 600_001);
    assert!(of("bytes").iter().any(|e| e["done"] == 600_001 && e["total"] == 600_001));
    assert_eq!(of("finished").iter().filter(|e| e["hashed"] == true).count(), 2);
    assert_eq!(events.last().unwrap()["event"], "done");
    let silent = scene.run(&["pull", "m.toml", "--progress", "none"]);
    assert!(silent.status.success() && stdout(&silent).is_empty() && stderr(&silent).is_empty());
}

#[test]
fn files_in_a_comfyui_tree_are_not_fetched_and_not_removed() {
    let scene = Scene::new();
    let folder = scene.sandbox.path("comfy/models/unet/wan");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dit.safetensors"), &**scene.dit).unwrap();
    let vae = scene.sandbox.path("elsewhere/v");
    std::fs::create_dir_all(&vae).unwrap();
    std::fs::write(vae.join("vae.safetensors"), &**scene.vae).unwrap();
    std::fs::write(
        scene.sandbox.path("comfy/extra_model_paths.yaml"),
        "a:\n  base_path: ../elsewhere\n  vae: v\n",
    )
    .unwrap();
    let output = scene.run(&["pull", "m.toml", "--models-dir", "comfy/models"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(scene.hub.requests(false).len(), 0, "{:?}", scene.hub.requests(false));
    let removed = scene.run(&["remove", "m.toml", "--models-dir", "comfy/models"]);
    assert!(stdout(&removed).contains("dit: left alone"), "{}", stdout(&removed));
    assert!(folder.join("dit.safetensors").exists());
    // One of another length is not taken for it.
    std::fs::write(folder.join("dit.safetensors"), b"a part").unwrap();
    let output = scene.run(&["pull", "m.toml", "--models-dir", "comfy/models"]);
    assert!(stderr(&output).contains("another length"), "{}", stderr(&output));
    assert!(std::fs::read(scene.link("sub/dit.safetensors")).unwrap() == *scene.dit);
    let paths = stdout(&scene.run(&["path", "m.toml", "--models-dir", "comfy/models"]));
    assert!(paths.contains("snapshots"), "{paths}");
}

#[test]
fn dropped_connections_are_resumed() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.drops = (100_000, 3));
    scene.assert_pull_ends_well();
    let resumed =
        scene.hub.requests(true).iter().filter(|r| r.to_lowercase().contains("range: bytes=")).count();
    assert_eq!(resumed, 3);
    assert!(scene.hub.body_bytes() < 720_000, "{} bytes were sent", scene.hub.body_bytes());
}

#[test]
fn a_server_without_ranges_starts_over() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| (s.drops, s.ignores_ranges) = ((400_000, 2), true));
    scene.assert_pull_ends_well();
}

#[test]
fn a_connection_that_never_works_ends_with_the_rest_kept() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.drops = (100_000, 1));
    scene.hub.change(VAE, |s| s.status = Some(503));
    assert_fails(&scene.pull(), 1, "the hub answers 503");
    scene.hub.change(VAE, |s| s.status = None);
    scene.assert_pull_ends_well();
}

#[test]
fn a_wrong_size_never_becomes_visible() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.sent = Some(noise(1, 500_000)));
    assert_fails(&scene.pull(), 1, "found 500000 bytes in what was fetched, expected 600001");
    scene.assert_not_visible();
    scene.hub.change(DIT, |s| s.sent = Some(noise(1, 700_000)));
    assert_fails(&scene.pull(), 1, "found 700000 bytes in what was fetched, expected 600001");
    scene.assert_not_visible();
    assert_eq!(scene.partials(), Vec::<String>::new());
    scene.hub.change(DIT, |s| s.sent = None);
    // What the description says holds against the hub, too, and before anything is fetched.
    let before = scene.hub.body_bytes();
    scene.describe(599_999, &sha256(&scene.dit));
    assert_fails(&scene.pull(), 1, "found 600001 bytes on the hub, expected 599999");
    scene.describe(600_001, &"0".repeat(64));
    assert_fails(&scene.pull(), 1, "expected 0000");
    assert_eq!(scene.hub.body_bytes(), before);
    scene.describe(600_001, &sha256(&scene.dit));
    scene.assert_pull_ends_well();
}

#[test]
fn a_page_in_place_of_the_file_costs_nothing_that_is_here() {
    let scene = Scene::new();
    let blobs = scene.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", sha256(&scene.dit)));
    std::fs::write(&partial, &scene.dit[..300_000]).unwrap();
    scene.hub.change(DIT, |s| (s.sent, s.ignores_ranges) = (Some(noise(1, 500)), true));
    assert_fails(&scene.pull(), 1, "found 500 bytes in what was fetched, expected 600001");
    assert_eq!(std::fs::metadata(&partial).unwrap().len(), 300_000);
    scene.hub.change(DIT, |s| (s.sent, s.ignores_ranges) = (None, false));
    scene.assert_pull_ends_well();
    assert!(scene.hub.body_bytes() < 500_000, "{} bytes were sent", scene.hub.body_bytes());
}

#[test]
fn a_wrong_hash_never_becomes_visible() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.sent = Some(noise(7, 600_001)));
    assert_fails(&scene.pull(), 1, "in what was fetched, expected");
    scene.assert_not_visible();
    assert_eq!(scene.partials(), Vec::<String>::new());
    scene.hub.change(DIT, |s| s.sent = None);
    scene.assert_pull_ends_well();
}

#[test]
fn a_spoilt_partial_file_is_fetched_anew() {
    let scene = Scene::new();
    let blobs = scene.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&scene.dit))), noise(9, 300_000).as_slice())
        .unwrap();
    scene.assert_pull_ends_well();
    std::fs::remove_dir_all(scene.repo()).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&scene.dit))), noise(9, 900_000).as_slice())
        .unwrap();
    scene.assert_pull_ends_well();
}

#[test]
fn an_address_that_is_none_is_not_tried() {
    let scene = Scene::new();
    let with =
        |endpoint: &str| scene.command(&["pull", "m.toml"]).env("HF_ENDPOINT", endpoint).output().unwrap();
    for endpoint in ["nonsense", "ftp://hub.test", "localhost:8080"] {
        let output = with(endpoint);
        assert_fails(
            &output,
            1,
            &format!("HF_ENDPOINT: found `{endpoint}`, expected an address such as https"),
        );
        assert!(!stderr(&output).contains("trying again"), "{}", stderr(&output));
    }
    // Nobody listens there.
    let output = with("http://127.0.0.1:1");
    assert_fails(&output, 1, "dit.safetensors: http://127.0.0.1:1: ");
    let text = stderr(&output);
    assert!(text.contains("; trying again\n") && !text.contains("kept"), "{text}");
}

#[test]
fn refusals_say_what_to_do() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.needs_token = true);
    assert_fails(&scene.pull(), 1, "(401); set HF_TOKEN");
    let with = |token: &str| scene.command(&["pull", "m.toml"]).env("HF_TOKEN", token).output().unwrap();
    assert_fails(&with("other"), 1, "accept the repository's terms");
    scene.hub.change(VAE, |s| s.status = Some(404));
    assert_fails(&with("secret"), 1, "wan-test/video/vae.safetensors: not found");
    scene.hub.change(VAE, |s| s.status = None);
    assert!(with("secret").status.success());

    let other = Scene::new();
    let offline = other.command(&["pull", "m.toml"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_fails(&offline, 1, "offline: wan-test/video/sub/dit.safetensors, wan-test/video/vae.safetensors");
    assert_fails(&other.run(&["pull", "--offline", "m.toml"]), 1, "offline: ");
    assert_eq!(other.hub.requests(false).len(), 0);
    assert_fails(&other.run(&["pull", "lightx2v-i2v-14b-480"]), 2, "did you mean `lightx2v-i2v-14b-480p`");
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_is_fetched() {
    let scene = Scene::new();
    scene.hub.change(VAE, |s| s.claimed = Some(1 << 60));
    assert_fails(&scene.pull(), 1, "bytes free, expected 11529215046");
    assert_eq!(scene.hub.body_bytes(), 0);
    assert!(scene.partials().is_empty());
}

#[test]
fn two_pulls_at_once_fetch_every_byte_once() {
    let scene = Scene::new();
    scene.hub.change(DIT, |s| s.pause = Duration::from_millis(20));
    let mut first = scene.command(&["pull", "m.toml"]).spawn().unwrap();
    // The second starts while the first is in its transfer.
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.hub.body_bytes() == 0 {
        assert!(Instant::now() < deadline, "the first pull fetches nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = scene.pull();
    assert!(second.status.success(), "{}", stderr(&second));
    assert!(stderr(&second).contains("another process fetches it, waiting"), "{}", stderr(&second));
    assert!(first.wait().unwrap().success());
    assert_eq!(scene.hub.body_bytes(), 700_001);
    scene.assert_pull_ends_well();
}

#[test]
fn a_pull_killed_at_any_point_ends_with_verified_files_when_run_again() {
    let scene = Scene::new();
    for file in [DIT, VAE] {
        scene.hub.change(file, |s| s.pause = Duration::from_millis(4));
    }
    let start = Instant::now();
    scene.assert_pull_ends_well();
    let whole = start.elapsed();
    let (mut killed, mut resumed) = (0, 0);
    for round in 0..20u32 {
        std::fs::remove_dir_all(scene.sandbox.path("hf")).unwrap();
        let mut child = scene.command(&["pull", "m.toml"]).spawn().unwrap();
        // Spread over the whole pull; how far it is by then differs from run to run.
        std::thread::sleep(whole * round / 20);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        std::fs::create_dir_all(scene.sandbox.path("hf")).unwrap();
        scene.assert_nothing_wrong_is_visible();
        let again = scene.assert_pull_ends_well();
        resumed += u32::from(stderr(&again).contains("going on after"));
    }
    assert!(
        killed >= 10 && resumed >= 3,
        "{killed} of 20 were killed at work, {resumed} resumed: nothing is shown"
    );
}
