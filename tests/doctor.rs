//! `wan-run doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Sandbox, assert_fails, stderr, stdout};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn a_machine_that_can_run_a_job_passes() {
    let sandbox = Sandbox::new();
    let text = stdout(&sandbox.ok(&["doctor", "--model", "tiny", "--device", "cpu"]));
    for part in [
        "wan-run ",
        "libavcodec",
        "6 operations in f32 differ",
        "mp4 (h264, yuv420p)",
        "MB/s",
        "tiny: 128x128",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.ends_with("no problems found\n"), "{text}");
    let report = json(&stdout(&sandbox.ok(&["doctor", "--json", "--model", "tiny", "--device", "cpu"])));
    for name in ["memory", "device", "arithmetic", "codecs", "disk (videos)", "models", "model"] {
        assert_ne!(check(&report, name)["state"], "fail", "{report}");
    }
    assert_eq!(sandbox.names(), Vec::<String>::new(), "nothing is left");
}

#[test]
fn what_keeps_jobs_from_running_is_told_with_what_to_do() {
    let sandbox = Sandbox::new();
    let named = sandbox.run(&["doctor", "--model", "wan2.1-i2v-14b-480p-fp8", "--device", "cpu"]);
    assert_fails(&named, 1, "doctor: problems found: model");
    let text = stdout(&named);
    assert!(
        text.contains("-> run `wan-run models pull wan2.1-i2v-14b-480p-fp8`, or use --models-dir"),
        "{text}"
    );
    assert_eq!(text.matches("models pull").count(), 1, "{text}");
    assert!(text.ends_with("1 problem found\n"), "{text}");
    // The default model is only missed.
    let report = json(&stdout(&sandbox.ok(&["doctor", "--json", "--device", "cpu"])));
    assert_eq!(check(&report, "model")["state"], "warn");

    fs::create_dir_all(sandbox.path("config/wan-run")).unwrap();
    fs::write(sandbox.path("config/wan-run/config.toml"), "stepz = 3\n").unwrap();
    assert_fails(&sandbox.run(&["doctor", "--model", "tiny"]), 1, "defaults");
    fs::remove_file(sandbox.path("config/wan-run/config.toml")).unwrap();

    fs::write(sandbox.path("config/wan-run/config.toml"), "max-ram = \"20MB\"\n").unwrap();
    let small = sandbox.run(&["doctor", "--model", "tiny"]);
    assert_fails(&small, 1, "model");
    assert!(stdout(&small).contains("not enough memory"), "{}", stdout(&small));
    fs::remove_dir_all(sandbox.path("config")).unwrap();

    let absent = sandbox.run(&["doctor", "--model", "tiny", "--folder", "absent"]);
    assert_fails(&absent, 1, "disk (videos)");
    fs::create_dir(sandbox.path("locked")).unwrap();
    fs::set_permissions(sandbox.path("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere.
    if fs::write(sandbox.path("locked/x"), "").is_err() {
        let locked = sandbox.run(&["doctor", "--model", "tiny", "--folder", "locked"]);
        assert_fails(&locked, 1, "disk (videos)");
    }
    if !cfg!(feature = "cuda") {
        let cuda = sandbox.run(&["doctor", "--model", "tiny", "--device", "cuda"]);
        assert_fails(&cuda, 1, "device, model");
        assert!(stdout(&cuda).contains("make build-cuda"));
    }
}

#[test]
fn the_text_can_be_shown_to_everybody() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("alice");
    fs::create_dir_all(home.join("models of mine")).unwrap();
    fs::write(home.join("models of mine/Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors"), "no weights").unwrap();
    for json in [&[][..], &["--json"]] {
        let output = sandbox
            .command()
            .env("HOME", &home)
            .env("HF_HOME", home.join("cache of alice/hf"))
            .env("HF_TOKEN", "hf_secretsecret")
            .env("USER", "alice")
            .env("WAN_RUN_MODELS_DIR", home.join("models of mine"))
            .args(["doctor", "--model", "wan2.1-i2v-14b-480p-fp8", "--device", "cpu"])
            .args(json)
            .output()
            .unwrap();
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("model"), "{text}");
        let folder = sandbox.path("");
        let folder = folder.to_str().unwrap().trim_end_matches('/');
        for private in ["alice", "secretsecret", folder] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }
}
