//! The command line: what is adjusted, what is refused, and what is left behind.

use std::collections::HashSet;
use std::process::Stdio;

use wan_sampler::{ComfySampler, ComfyScheduler, KSampler, SchedulerKind};

use crate::support::{Sandbox, assert_fails, sample_image, stderr, stdout, tensor, tiny_args};

#[test]
fn a_job_prints_its_path_and_leaves_one_file() {
    let sandbox = Sandbox::new();
    let output = sandbox.tiny(&["--quiet"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "out.mp4\n");
    assert_eq!(stderr(&output), "");
    assert_eq!(sandbox.names(), ["out.mp4"]);
}

/// Each goes another way from the same noise, and the same way again.
#[test]
fn every_scheduler_makes_a_video_of_its_own() {
    let sandbox = Sandbox::new();
    let latents = |name: &str| {
        let steps = ["--steps", "4", "--save-latents", "l.safetensors", "--overwrite"];
        let output = sandbox.tiny(&[&steps[..], &["--scheduler", name]].concat());
        let text = stderr(&output);
        assert!(output.status.success() && text.contains(name), "{name}: {text}");
        let latents = tensor(&sandbox.path("l.safetensors"), "latents").flatten_all().unwrap();
        latents.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let mut made = HashSet::new();
    for kind in SchedulerKind::WRAPPER {
        assert!(made.insert(latents(kind.name())), "{kind} makes the video of another");
    }
    for pair in KSampler::ALL {
        // All samplers on one scheduler, and one on all; `normal` has the wrapper's sigmas for `euler`, but for roundings.
        let (simple, euler) = (pair.scheduler == ComfyScheduler::Simple, pair.sampler == ComfySampler::Euler);
        if simple || (euler && pair.scheduler != ComfyScheduler::Normal) {
            assert!(made.insert(latents(pair.name())), "{} makes the video of another", pair.name());
        }
    }
    for name in ["lcm", "unipc/beta"] {
        assert!(!made.insert(latents(name)), "{name} makes another video the second time");
    }
}

#[test]
fn generate_may_be_left_out() {
    let sandbox = Sandbox::new();
    let args = crate::support::tiny_args(&["--format", "rgb", "--output", "out.rgb"]);
    sandbox.ok(&args[1..]);
    let bytes = std::fs::metadata(sandbox.path("out.rgb")).unwrap().len();
    assert_eq!(bytes, 5 * 64 * 64 * 3);
}

#[test]
fn adjustments_are_told_in_one_line_each() {
    let sandbox = Sandbox::new();
    let output = sandbox.tiny(&["--frames", "7", "--width", "70", "--height", "70", "!--seed", "!--prompt"]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    for line in ["frames rounded down from 7 to 5", "size adjusted from 70x70 to 64x64", "chosen at random"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let text = stderr(&sandbox.tiny(&["--no-adjust-resolution", "--width", "65", "--overwrite"]));
    assert!(text.contains("size rounded down from 65x64 to 64x64"), "{text}");
    let text = stderr(&sandbox.tiny(&["--denoise-strength", "0.5", "--overwrite"]));
    assert!(text.contains("hint: image-to-video starts from noise"), "{text}");
    assert!(
        !text.contains("enlarged") && !text.contains("no effect") && !text.contains("transparent"),
        "{text}"
    );

    let picture = |name: &str, width, height, alpha| {
        let pixels = image::RgbaImage::from_pixel(width, height, image::Rgba([9, 99, 9, alpha]));
        pixels.save(sandbox.path(name)).unwrap();
    };
    picture("clear.png", 32, 32, 100);
    let clear = ["--image", "clear.png", "--fast", "--overwrite"];
    let text = stderr(&sandbox.tiny(&clear));
    for line in [
        "hint: the image has 32x32 pixels and is enlarged to 64x64",
        "fast, precision and attention have no effect on the CPU",
        "the image has transparent pixels; --alpha white or black fills them",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
    }
    let text = stderr(&sandbox.tiny(&[&clear[..], &["--alpha", "drop"]].concat()));
    assert!(!text.contains("transparent"), "{text}");
    let text = stderr(&sandbox.tiny(&["--steps", "1", "--vae-tiling", "on", "--overwrite"]));
    assert!(text.contains(", 1 step,") && text.contains("decoded in 1 tile,"), "{text}");
}

#[test]
fn usage_errors_write_nothing() {
    let sandbox = Sandbox::new();
    let rows: [(&[&str], &str); 49] = [
        (&["--steps", "0"], "steps: found 0"),
        (&["--frames", "0"], "frames: found 0"),
        (&["--width", "0"], "width: found 0"),
        (&["--cfg", "NaN"], "cfg: found NaN"),
        (&["--cfg", "-1"], "cfg: found -1"),
        (&["--cfg", "0"], "cfg: found 0"),
        (&["--shift", "0"], "shift: found 0"),
        (&["--shift", "nan"], "shift: found NaN"),
        (&["--shift", "-3"], "shift: found -3"),
        (&["--shift", "inf"], "shift: found inf"),
        (&["--denoise-strength", "0"], "denoise-strength: found 0"),
        (&["--denoise-strength", "1.5"], "denoise-strength: found 1.5"),
        (&["--denoise-strength", "nan"], "denoise-strength: found NaN"),
        (&["--seed", "18446744073709551616"], "found 18446744073709551616, expected 0 to"),
        (&["--seed", "-1"], "--seed: found -1, expected 0 to 18446744073709551615, or none for a random one"),
        (&["--width", "-5"], "--width: found -5, expected a whole number, 0 or above"),
        (&["--cfg", "abc"], "--cfg: found abc, expected a number"),
        (&["--count", "0"], "--count: found 0, expected 1 to 9999"),
        (&["photo.png"], "did you mean `--image photo.png`?"),
        (&["--scheduler", "dpm+"], "similar value"),
        (&["--scheduler", "euler/beto"], "a similar value exists: 'euler/beta'"),
        (&["--scheduler", "er_sde"], "'er_sde'"),
        (&["--scheduler", "euler/kl_optimal", "--steps", "1"], "sigma 0 is not a number"),
        (
            &["--scheduler", "flowmatch_distill", "--steps", "5"],
            "flowmatch_distill has a grid of 4 steps, found 5",
        ),
        (&["--format", "mpeg"], "'mpeg'"),
        (&["--model", "tinny"], "did you mean `tiny`"),
        (&["--crf", "99"], "crf is 99"),
        (&["--fps", "0"], "frame rate is 0"),
        (&["--tile-height", "4"], "tile-height: found 4 pixels, expected at least 8"),
        (&["--tile-width", "64"], "tile-stride-width: found 128 pixels, expected 8 to the tile's 64"),
        (&["--device", "gpu"], "device: found `gpu`"),
        (&["--output", "absent/out.mp4"], "does not exist"),
        (&["--save-latents", "absent/l.safetensors"], "does not exist"),
        (&["!--image"], "--image FILE"),
        (&["--noise-aug-strength", "-1"], "noise-aug-strength: found -1"),
        (&["--steps", "1000000"], "steps is 1000000"),
        (&["--steps", "-1"], "--steps: found -1"),
        (&["--denoise-strength", "1e-9"], "expected 1 to 100000"),
        (&["--shift", "1e30"], "expected strictly decreasing sigmas"),
        (&["--riflex-freq-index", "99"], "riflex-freq-index: found 99, expected 0 to 12"),
        (&["--output", "x.mp4", "--format", "gif"], "an extension that means mp4"),
        (&["--output", "x.mkv"], "found extension .mkv"),
        (&["--output", "x.png"], "--format png"),
        (&["--output", "folder/"], "found a folder's name"),
        (&["--contact-sheet", "./out.mp4"], "which is also --output"),
        (&["--preview", "p.png", "--contact-sheet", "p.png"], "which is also --contact-sheet"),
        (&["--save-latents", "out.mp4.resume.safetensors"], "which is also the resume file"),
        (&["--config", "absent.toml"], "defaults file absent.toml"),
        (&["--model", "absent.toml"], "absent.toml"),
    ];
    for (args, message) in rows {
        let output = sandbox.tiny(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
        // Adjustments may have been told before; the error itself is one line.
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("wan-run: "), "{args:?}: {text}");
        crate::troubleshooting::assert_covered(last);
    }
    assert_eq!(sandbox.names(), Vec::<String>::new());
}

#[test]
fn kernels_to_leave_out_are_named() {
    let sandbox = Sandbox::new();
    let info =
        |kernels: &str| sandbox.command().env("WAN_RUN_KERNELS", kernels).arg("info").output().unwrap();
    for kernels in ["", "auto", "all", "portable", "portable:conv3d", "portable:attention,conv3d"] {
        assert!(info(kernels).status.success(), "{kernels}");
    }
    for kernels in ["fast", "portable:", "portable:norm", "portable:conv3d,"] {
        assert_fails(&info(kernels), 2, &format!("WAN_RUN_KERNELS: found `{kernels}`"));
    }
}

#[test]
fn what_is_left_out_of_a_long_prompt_is_told() {
    let sandbox = Sandbox::new();
    let note = |words: usize| {
        let prompt = "the red circle moves right ".repeat(words / 5);
        let args = ["!--prompt", "--prompt", &prompt, "--output", "x.rgb", "--overwrite"];
        stderr(&sandbox.ok(&tiny_args(&args))).lines().find(|l| l.contains("left out")).map(str::to_owned)
    };
    assert_eq!(note(20), None);
    let told = note(2000).expect("a note");
    assert!(told.starts_with("a prompt has ") && told.contains("of which the model reads 511"), "{told}");
}

#[test]
fn inputs_are_never_overwritten() {
    let sandbox = Sandbox::new();
    std::fs::copy(sample_image(), sandbox.path("in.png")).unwrap();
    let before = std::fs::read(sandbox.path("in.png")).unwrap();
    std::fs::write(sandbox.path("lora.safetensors"), b"x").unwrap();
    let lora = ["--lora", "lora.safetensors", "--save-latents", "lora.safetensors", "--overwrite"];
    assert_fails(&sandbox.run(&tiny_args(&lora)), 2, "which is also --lora");
    for option in ["--contact-sheet", "--preview", "--save-latents"] {
        let output = sandbox.tiny(&["--image", "in.png", option, "in.png", "--overwrite"]);
        assert_fails(&output, 2, "which is also --image");
        assert_fails(&sandbox.tiny(&[option, "in.png"]), 2, "exists already");
    }
    assert!(std::fs::read(sandbox.path("in.png")).unwrap() == before);
    assert_eq!(sandbox.names(), ["in.png", "lora.safetensors"]);
}

#[test]
fn the_extension_decides_the_format_and_the_last_option_counts() {
    let sandbox = Sandbox::new();
    sandbox.ok(&crate::support::tiny_args(&["--output", "out.gif", "--steps", "9", "--steps", "1"]));
    assert!(std::fs::read(sandbox.path("out.gif")).unwrap().starts_with(b"GIF89a"));
    std::fs::write(sandbox.path("defaults.toml"), "format = \"webp\"\n").unwrap();
    let args = crate::support::tiny_args(&["!--output", "--config", "defaults.toml", "--steps", "1"]);
    assert_eq!(stdout(&sandbox.ok(&args)), "wan-run_00001.webp\n");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let sandbox = Sandbox::new();
    for args in [&["man"][..], &["completions", "bash"], &["info", "--model", "tiny"]] {
        let mut child =
            sandbox.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    let mut child = sandbox
        .command()
        .args(crate::support::tiny_args(&[]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().unwrap().success());
    assert_eq!(sandbox.names(), ["out.mp4"]);
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let sandbox = Sandbox::new();
    for args in [&["man"][..], &["info", "--model", "tiny"], &["models", "list"], &["models", "path", "tiny"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = sandbox.command().args(args).stdout(full).output().unwrap();
        assert_fails(&output, 1, "standard output");
    }
}

#[test]
fn jobs_that_run_at_once_get_names_of_their_own() {
    let sandbox = Sandbox::new();
    let args = crate::support::tiny_args(&["!--output", "--output-prefix", "clip", "--quiet"]);
    let children: Vec<_> = (0..3)
        .map(|_| sandbox.command().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(sandbox.names(), ["clip_00001.mp4", "clip_00002.mp4", "clip_00003.mp4"]);
}

#[test]
fn an_existing_output_is_kept_unless_told() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("out.mp4"), b"precious").unwrap();
    assert_fails(&sandbox.tiny(&[]), 2, "exists already, choose another name or add --overwrite");
    assert_eq!(std::fs::read(sandbox.path("out.mp4")).unwrap(), b"precious");
    assert!(sandbox.tiny(&["--overwrite"]).status.success());
    assert_ne!(std::fs::read(sandbox.path("out.mp4")).unwrap(), b"precious");
}

#[test]
fn unnamed_outputs_are_numbered() {
    let sandbox = Sandbox::new();
    for expected in ["clip_00001.mp4\n", "clip_00002.mp4\n"] {
        let output = sandbox.tiny(&["!--output", "--output-prefix", "clip", "--quiet"]);
        assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    }
}

#[test]
fn json_progress_is_one_event_a_line() {
    let sandbox = Sandbox::new();
    let output = sandbox.tiny(&["--progress", "json"]);
    let text = stdout(&output);
    let events: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    let steps = events.iter().filter(|e| e["event"] == "step" && e["stage"] == "denoise").count();
    assert_eq!(steps, 2);
    let last = events.last().unwrap();
    assert_eq!((last["event"].as_str(), last["output"].as_str()), (Some("done"), Some("out.mp4")));
    assert_eq!(last["frames"], 5);
}

#[test]
fn a_defaults_file_fills_what_is_left_out() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("config/wan-run")).unwrap();
    let config = sandbox.path("config/wan-run/config.toml");
    std::fs::write(&config, "model = \"tiny\"\nsteps = 3\nscheduler = \"euler\"\n").unwrap();
    let args = crate::support::tiny_args(&["!--steps"]);
    let text = stderr(&sandbox.ok(&args));
    assert!(text.contains("3 steps") && text.contains("euler"), "{text}");
    // Of the model there is a variable, too; what is typed counts more than both.
    let with_variable = |model: &str, args: &[&str]| {
        let output = sandbox.command().args(args).env("WAN_RUN_MODEL", model).output().unwrap();
        format!("{}{}", stdout(&output), stderr(&output))
    };
    let absent = with_variable("absent", &["info"]);
    assert!(absent.contains("absent"), "{absent}");
    for model in ["", "absent"] {
        let text = with_variable(model, &["info", "--model", "tiny"]);
        assert!(text.contains("128x128"), "{text}");
    }
    assert!(with_variable("", &["info"]).contains("128x128"), "an empty variable is none");
    std::fs::write(&config, "stepz = 3\n").unwrap();
    assert_fails(&sandbox.tiny(&["--overwrite"]), 2, "unknown key `stepz` (did you mean `steps`?)");
    std::fs::write(&config, "steps = \"3\"\n").unwrap();
    assert_fails(
        &sandbox.tiny(&["--overwrite"]),
        2,
        "steps: found string \"3\", expected a whole number, 0 or above",
    );
}

#[test]
fn info_tells_what_a_job_takes() {
    let sandbox = Sandbox::new();
    let text = stdout(&sandbox.ok(&["info", "--model", "tiny", "--width", "512", "--height", "512"]));
    for part in
        ["cpu", "512x512, 81 frames, 21504 video tokens", "denoise", "decode", "wan2.1-i2v-14b-480p-fp8"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn missing_model_files_are_named_with_their_source() {
    let sandbox = Sandbox::new();
    let sample = sample_image();
    let output = sandbox.run(&["--image", sample.to_str().unwrap(), "--prompt", "x"]);
    assert_fails(&output, 1, "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors");
    assert!(stderr(&output).contains("Kijai/WanVideo_comfy") && stderr(&output).contains("--model tiny"));
}

#[test]
fn help_completions_and_manual_are_there() {
    let sandbox = Sandbox::new();
    let help = stdout(&sandbox.ok(&["--help"]));
    for option in
        ["--image", "--negative-prompt", "--from-latents", "--resume", "--vae-tiling", "probe", "info"]
    {
        assert!(help.contains(option), "{option} in {help}");
    }
    for part in SchedulerKind::ALL.iter().flat_map(|kind| kind.name().split('/')) {
        assert!(help.contains(part), "{part} in {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&sandbox.ok(&["completions", shell])).contains("wan-run"));
    }
    assert!(stdout(&sandbox.ok(&["man"])).contains(".TH"));
    let probe = stdout(&sandbox.ok(&["probe", "--help"]));
    assert!(probe.contains("attention_mask i64 [1,L]"), "{probe}");
}
