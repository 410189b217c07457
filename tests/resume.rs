//! Stopping and going on: nothing is lost, and nothing changes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Sandbox, assert_fails, stderr, stdout, tiny_args};

/// Runs a job of 300 steps, interrupts it after its second step, and returns the sandbox with the resume file.
fn interrupted(more: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let args = job(more);
    let mut child = sandbox
        .command()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let seen = lines.by_ref().map_while(Result::ok).find(|l| l.contains("step 2 of 300"));
    assert!(seen.is_some(), "no progress");
    crate::support::signal(child.id(), "INT");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{rest:?}");
    let last = rest.last().unwrap();
    assert!(last.contains("--resume out.mp4.resume.safetensors"), "{last}");
    assert_eq!(sandbox.names(), ["out.mp4.resume.safetensors"], "no half video");
    sandbox
}

/// What the stopped command also was to write is written.
#[test]
fn further_outputs_are_kept_in_mind() {
    let sandbox = interrupted(&["--contact-sheet", "sheet.png"]);
    // As from another shell; the variable is no option.
    let output = sandbox
        .command()
        .args(["--resume", "out.mp4.resume.safetensors"])
        .env("WAN_RUN_MODEL", "absent")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let whole = Sandbox::new();
    whole.ok(&job(&["--contact-sheet", "sheet.png"]));
    for file in ["latents.safetensors", "sheet.png", "out.mp4"] {
        let read = |s: &Sandbox| std::fs::read(s.path(file)).unwrap();
        assert!(read(&sandbox) == read(&whole), "{file} differs");
    }
}

fn job(more: &[&str]) -> Vec<String> {
    tiny_args(&[&["--steps", "300", "--save-latents", "latents.safetensors"], more].concat())
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_byte_for_byte() {
    // Solvers without and with random numbers of their own, and two with a long history.
    let folder = Sandbox::new();
    let lora = crate::lora::write(&folder, "a.safetensors");
    let lora = lora.to_str().unwrap();
    let jobs: [&[&str]; 10] = [
        &["--scheduler", "dpm++"],
        &["--scheduler", "dpm++_sde"],
        &["--scheduler", "unipc"],
        &["--scheduler", "unipc/beta"],
        &["--scheduler", "uni_pc/simple"],
        // Its noise is scaled at the start.
        &["--scheduler", "dpmpp_2m/karras", "--denoise-strength", "0.9"],
        &["--scheduler", "deis"],
        &["--scheduler", "res_multistep"],
        &["--scheduler", "lcm"],
        &["--scheduler", "euler", "--lora", lora],
    ];
    for more in jobs {
        let sandbox = interrupted(more);
        let args = ["--resume", "out.mp4.resume.safetensors", "--save-latents", "latents.safetensors"];
        sandbox.ok(&args);
        let whole = Sandbox::new();
        whole.ok(&job(more));
        for file in ["latents.safetensors", "out.mp4"] {
            let read = |s: &Sandbox| std::fs::read(s.path(file)).unwrap();
            assert!(read(&sandbox) == read(&whole), "{more:?}: {file} differs");
        }
    }
}

/// Runs a job and sends signals once it says that `stage` has begun: exit code and last line of what it said.
fn stopped(sandbox: &Sandbox, args: &[&str], stage: &str, signals: usize) -> (Option<i32>, String) {
    let args = tiny_args(&[args, &["--progress", "json"]].concat());
    let mut child = sandbox
        .command()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let begun = format!("\"stage\":\"{stage}\"");
    assert!(lines.by_ref().any(|l| l.contains(&begun)), "{stage} was never reached");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut last = String::new();
    for _ in 0..signals {
        crate::support::signal(child.id(), "INT");
        // The answer to one signal, before the next.
        last = said.next().unwrap_or_default();
    }
    last = said.last().unwrap_or(last);
    (child.wait().unwrap().code(), last)
}

#[test]
fn stopping_leaves_nothing_half_written() {
    let large = ["--width", "256", "--height", "256", "--frames", "81", "--steps", "1"];
    let sandbox = Sandbox::new();
    let (code, line) = stopped(&sandbox, &large, "encode-condition", 1);
    assert_eq!((code, line.as_str()), (Some(130), "wan-run: stopped before the first step; nothing is kept"));
    assert_eq!(sandbox.names(), Vec::<String>::new());

    let (code, line) = stopped(&sandbox, &large, "decode", 1);
    assert_eq!(code, Some(130), "{line}");
    assert!(line.contains("stopped after step 1 of 1; the latents are kept"), "{line}");
    assert_eq!(sandbox.names(), ["out.mp4.resume.safetensors"]);

    // The second signal does not wait for anything.
    for format in [["--format", "mp4", "--output", "b.mp4"], ["--format", "png", "--output", "b"]] {
        let (code, _) = stopped(&sandbox, &[&large[..], &format].concat(), "decode", 2);
        assert_eq!(code, Some(130));
        let names = sandbox.names();
        assert!(names.iter().all(|n| n.ends_with(".resume.safetensors")), "{names:?}");
    }
}

#[test]
fn a_job_finds_its_output_from_another_folder() {
    let sandbox = interrupted(&[]);
    std::fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let resume = ["--resume", "../out.mp4.resume.safetensors", "-q"];
    let output =
        sandbox.command().current_dir(sandbox.path("elsewhere")).args(resume).output().expect("a run");
    assert!(output.status.success(), "{}", stderr(&output));
    for file in ["out.mp4", "latents.safetensors"] {
        assert!(sandbox.path(file).is_file(), "{file}: {:?}", sandbox.names());
    }
    assert!(std::fs::read_dir(sandbox.path("elsewhere")).unwrap().next().is_none());
}

#[test]
fn resuming_takes_no_parameters() {
    let sandbox = Sandbox::new();
    assert_fails(&sandbox.run(&["--resume", "x", "--steps", "3"]), 2, "--steps");
}

#[test]
fn something_else_is_no_resume_file() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--save-latents", "latents.safetensors", "--quiet"]));
    assert_fails(&sandbox.run(&["--resume", "latents.safetensors"]), 1, "not a usable resume file");
    assert_fails(&sandbox.run(&["--resume", "out.mp4"]), 1, "out.mp4");
    assert_fails(&sandbox.run(&["--resume", "absent"]), 1, "absent");
}

#[test]
fn saved_latents_decode_to_the_same_video() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--save-latents", "l.safetensors", "--format", "rgb", "--output", "a.rgb"]));
    let args = ["--model", "tiny", "--from-latents", "l.safetensors", "--format", "rgb", "--output", "b.rgb"];
    let output = sandbox.ok(&args);
    assert_eq!(stdout(&output), "b.rgb\n", "{}", stderr(&output));
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert_eq!(read("a.rgb"), read("b.rgb"));
}

/// What is decoded later says of itself what it would have said at once, and nothing that nobody knows.
#[test]
fn saved_latents_say_how_they_were_made() {
    let sandbox = Sandbox::new();
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    let record = |name: &str| wan_media::read_metadata(&sandbox.path(name)).unwrap();
    let made = ["--save-latents", "l.safetensors", "!--seed", "--fps", "8", "--alpha", "black"];
    sandbox.ok(&tiny_args(&[&made[..], &["--output", "a.mp4"]].concat()));
    sandbox.ok(&["--from-latents", "l.safetensors", "--output", "b.mp4"]);
    assert!(record("b.mp4").is_some());
    assert_eq!(record("a.mp4"), record("b.mp4"));
    assert!(read("a.mp4") == read("b.mp4"));

    sandbox.ok(&["probe", "noise", "--shape", "16,2,8,8", "--output", "bare.safetensors"]);
    let bare = ["--from-latents", "bare.safetensors", "--model", "tiny", "--output"];
    let text = stderr(&sandbox.ok(&[&bare[..], &["c.mp4"]].concat()));
    assert!(text.contains("bare.safetensors: says nothing about how it was made"), "{text}");
    assert_eq!(record("c.mp4"), None);
    sandbox.ok(&[&bare[..], &["d.mp4", "--from-video", "a.mp4"]].concat());
    assert!(record("d.mp4").is_some());

    sandbox.ok(&tiny_args(&["--save-latents", "n.safetensors", "--no-metadata", "--output", "e.mp4"]));
    sandbox.ok(&["--from-latents", "n.safetensors", "--model", "tiny", "--output", "f.mp4"]);
    assert!(read("e.mp4") == read("f.mp4"));
}

#[test]
fn a_transparent_image_is_filled_again_as_it_was() {
    let sandbox = Sandbox::new();
    let clear = image::RgbaImage::from_pixel(64, 64, image::Rgba([200, 20, 20, 0]));
    clear.save(sandbox.path("clear.png")).unwrap();
    let image = ["--image", "clear.png"];
    sandbox.ok(&tiny_args(&[&image[..], &["--alpha", "white"]].concat()));
    sandbox.ok(&tiny_args(&[&image[..], &["--output", "drop.mp4"]].concat()));
    sandbox.ok(&[&image[..], &["--from-video", "out.mp4", "--output", "again.mp4"]].concat());
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(read("out.mp4") != read("drop.mp4"));
    assert!(read("out.mp4") == read("again.mp4"));
    // Of a default, too, the record is the master.
    std::fs::write(sandbox.path("c.toml"), "alpha = \"white\"\n").unwrap();
    let again = ["--from-video", "drop.mp4", "--output", "drop-again.mp4", "--config", "c.toml"];
    sandbox.ok(&[&image[..], &again].concat());
    assert!(read("drop.mp4") == read("drop-again.mp4"));
}

#[test]
fn a_video_can_be_made_again_from_its_own_record() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["!--seed", "--scheduler", "unipc", "--cfg", "2.5"]));
    let sample = crate::support::sample_image();
    let sample = sample.to_str().unwrap();
    sandbox.ok(&["--from-video", "out.mp4", "--image", sample, "--output", "again.mp4"]);
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(read("out.mp4") == read("again.mp4"));
    // The variable is a default, and the video is not.
    let args = ["--from-video", "out.mp4", "--image", sample, "--output", "third.mp4"];
    let third = sandbox.command().args(args).env("WAN_RUN_MODEL", "absent").output().unwrap();
    assert!(third.status.success(), "{}", stderr(&third));
    assert!(read("out.mp4") == read("third.mp4"));

    sandbox.ok(&tiny_args(&["--no-metadata", "--output", "bare.mp4"]));
    let output = sandbox.run(&["--from-video", "bare.mp4", "--image", sample, "--output", "x.mp4"]);
    assert_fails(&output, 1, "found no wan-run parameters");
}
