//! Running the real binary in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Tensor;
use tempfile::TempDir;
use wan_core::WeightSet;
pub use wan_core::testkit::repo_path;

/// A temporary folder in which `wan-run` is run.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command, ready for arguments; the user's own defaults and models are out of reach.
    pub fn command(&self) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_wan-run")))
    }

    /// Runs a line that the program printed, as a shell takes it; it must succeed.
    pub fn shell(&self, line: &str) -> Output {
        let line = line.replacen("wan-run", env!("CARGO_BIN_EXE_wan-run"), 1);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]);
        let output = self.prepared(shell).output().expect("a shell");
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        output
    }

    fn prepared(&self, mut command: Command) -> Command {
        command
            .current_dir(self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("HF_HOME", self.dir.path().join("hf"))
            .env_remove("HF_HUB_CACHE")
            .env_remove("WAN_RUN_MODEL")
            .env_remove("WAN_RUN_MODELS_DIR")
            .env_remove("WAN_RUN_TOKEN");
        command
    }

    /// Runs with `args`.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        self.command().args(args).output().expect("wan-run starts")
    }

    /// Runs with `args`, which must succeed.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        let output = self.run(args);
        assert!(output.status.success(), "{}: {}", output.status, stderr(&output));
        output
    }

    /// A small job on the embedded model, with further arguments.
    pub fn tiny(&self, more: &[&str]) -> Output {
        self.run(&tiny_args(more))
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .expect("the folder")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Arguments of a small job on the embedded model: 64x64, 5 frames, 2 steps. Later ones override.
pub fn tiny_args(more: &[&str]) -> Vec<String> {
    let mut args = vec!["generate"];
    let given = |name: &str| more.iter().any(|m| m.split('=').next() == Some(name));
    let sample = sample_image();
    let defaults = [
        ("--model", "tiny"),
        ("--image", sample.to_str().expect("a plain path")),
        ("--prompt", "a red balloon rises"),
        ("--negative-prompt", "static"),
        ("--width", "64"),
        ("--height", "64"),
        ("--frames", "5"),
        ("--steps", "2"),
        ("--seed", "42"),
        ("--output", "out.mp4"),
    ];
    // A key of `more` without a value takes the default away: `!--image`.
    for (name, value) in &defaults {
        if !given(name) && !given(&format!("!{name}")) {
            args.extend([*name, *value]);
        }
    }
    args.extend(more.iter().filter(|m| !m.starts_with('!')));
    args.into_iter().map(str::to_string).collect()
}

/// Sends a process a signal: `INT`. By the shell, which has `kill` where no program of this name is installed.
pub fn signal(process: u32, signal: &str) {
    let command = format!("kill -{signal} {process}");
    assert!(Command::new("sh").args(["-c", &command]).status().expect("sh runs").success(), "{command}");
}

pub fn sample_image() -> PathBuf {
    repo_path("models/tiny/sample.png")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A float tensor of a safetensors file.
pub fn tensor(path: &Path, name: &str) -> Tensor {
    let set = WeightSet::open(path).unwrap_or_else(|e| panic!("{e}"));
    let stored = set.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", path.display()));
    stored.to_f32_tensor(&candle_core::Device::Cpu).expect("a float tensor")
}

/// Asserts exit code and a part of the message, which is one line, and which docs/troubleshooting.md explains.
pub fn assert_fails(output: &Output, code: i32, message: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(message), "expected `{message}` in the last line of: {text}");
    crate::troubleshooting::assert_covered(last);
}
