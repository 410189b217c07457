//! More of a video, from its last frame on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use wan_media::probe::{decode_frames, probe};
use wan_media::write_png;

use crate::support::{Sandbox, assert_fails, sample_image, stderr, tiny_args};

const FRAME: usize = 64 * 64 * 3;

/// A sandbox with a video `clip.mp4` of 5 frames at 8 frames per second.
fn with_clip() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--output", "clip.mp4", "--fps", "8"]));
    sandbox
}

fn read(sandbox: &Sandbox, name: &str) -> Vec<u8> {
    std::fs::read(sandbox.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn segments_follow_without_a_repeated_frame() {
    let sandbox = with_clip();
    sandbox.ok(&["--extend", "clip.mp4", "--segments", "2", "--seed", "9", "--output", "long.rgb"]);
    let long = read(&sandbox, "long.rgb");
    assert_eq!(long.len(), (5 + 4 + 4) * FRAME);
    let frames = decode_frames(&sandbox.path("clip.mp4")).unwrap();
    let clip: Vec<u8> = frames.iter().flat_map(|frame| frame.data().to_vec()).collect();
    assert!(long[..5 * FRAME] == clip, "the clip comes first, as it is");

    // Each segment is the video of the frame before it, with the clip's own parameters and the next seed.
    write_png(&sandbox.path("last.png"), &frames[4], None).unwrap();
    let single = |image: &str, seed: &str, output: &str| {
        sandbox.ok(&tiny_args(&[
            "--image",
            image,
            "--seed",
            seed,
            "--no-adjust-resolution",
            "--output",
            output,
        ]));
        read(&sandbox, output)
    };
    let first = single("last.png", "9", "first.rgb");
    assert!(long[5 * FRAME..9 * FRAME] == first[FRAME..]);
    let last = wan_media::RgbImage::new(64, 64, first[4 * FRAME..].to_vec()).unwrap();
    write_png(&sandbox.path("last.png"), &last, None).unwrap();
    assert!(long[9 * FRAME..] == single("last.png", "10", "second.rgb")[FRAME..]);
}

#[test]
fn the_output_is_one_video_with_a_record() {
    let sandbox = with_clip();
    let output = sandbox.ok(&["--extend", "clip.mp4", "--output", "long.mp4", "--prompt", "it falls"]);
    let text = stderr(&output);
    assert!(text.contains("seed ") && text.contains("colours may drift"), "{text}");
    let facts = probe(&sandbox.path("long.mp4")).unwrap();
    assert_eq!((facts.width, facts.height, facts.frames, facts.fps), (64, 64, 9, (8, 1)));
    let record = wan_media::read_metadata(&sandbox.path("long.mp4")).unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!((record["extends"].as_str(), record["prompt"].as_str()), (Some("clip.mp4"), Some("it falls")));

    // A video of another program: parameters come from the options.
    sandbox.ok(&tiny_args(&["--no-metadata", "--output", "bare.mp4"]));
    std::fs::copy(sample_image(), sandbox.path("photo.png")).unwrap();
    assert_fails(&sandbox.run(&["--extend", "photo.png", "--output", "x.mp4"]), 2, "found a single picture");
    let more = ["--extend", "bare.mp4", "--model", "tiny", "--prompt", "x", "--frames", "5", "--steps", "1"];
    sandbox.ok(&[&more[..], &["--output", "more.mp4"]].concat());
    assert_eq!(probe(&sandbox.path("more.mp4")).unwrap().frames, 9);
}

#[test]
fn what_was_whole_is_kept_when_it_stops() {
    let sandbox = with_clip();
    let mut child = sandbox
        .command()
        .args([
            "--extend",
            "clip.mp4",
            "--segments",
            "3",
            "--steps",
            "200",
            "--seed",
            "5",
            "--output",
            "long.mp4",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(
        said.by_ref().any(|l| l == "segment 2 of 3") && said.by_ref().any(|l| l.contains("step 1 of 200"))
    );
    crate::support::signal(child.id(), "INT");
    let last = said.last().unwrap_or_default();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.contains("segment 2 of 3: stopped; "), "{last}");
    assert!(last.contains("go on with wan-run --extend long.mp4 --segments 2 --seed 6"), "{last}");
    assert_eq!(probe(&sandbox.path("long.mp4")).unwrap().frames, 9);
    assert_eq!(sandbox.names(), ["clip.mp4", "long.mp4"]);
}

/// Where the output says nothing of itself, the command that goes on does.
#[test]
fn the_command_that_goes_on_stands_for_itself() {
    let sandbox = Sandbox::new();
    let made = ["--output", "my  clip.mp4", "--prompt", "it's calm", "--cfg", "2.5"];
    sandbox.ok(&tiny_args(&made));
    std::fs::create_dir(sandbox.path("models")).unwrap();
    let args = ["--extend", "my  clip.mp4", "--segments", "2", "--steps", "200", "--seed", "5"];
    let args =
        [&args[..], &["--models-dir", "./models", "--output", "my  long.mp4", "--no-metadata"]].concat();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let last = crate::batch::interrupted(&sandbox, &args, "segment 2 of 2", || {});
    let (_, command) = last.split_once("go on with ").unwrap_or_else(|| panic!("{last}"));
    for part in [
        "wan-run --extend 'my  long.mp4' --segments 1 --seed 6 ",
        " --model tiny",
        " --models-dir ./models",
        r" --prompt 'it'\''s calm'",
        " --steps 200",
        " --cfg 2.5",
        " --no-metadata",
    ] {
        assert!(command.contains(part), "{part} in {command}");
    }
    assert!(!command.contains("--tile") && !command.contains("--width"), "{command}");
    sandbox.shell(&format!("{command} --output rest.rgb"));
    // With the record it is short.
    let args: Vec<String> = args.iter().filter(|a| *a != "--no-metadata").cloned().collect();
    let last = crate::batch::interrupted(
        &sandbox,
        &[args, vec!["--output".into(), "short.mp4".into()]].concat(),
        "segment 2 of 2",
        || {},
    );
    assert!(
        last.ends_with("go on with wan-run --extend short.mp4 --segments 1 --seed 6 --models-dir ./models"),
        "{last}"
    );
    sandbox.shell(&format!("{} --output more.rgb", last.split_once("go on with ").unwrap().1));
    assert!(read(&sandbox, "rest.rgb").len() == read(&sandbox, "more.rgb").len());
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let sandbox = with_clip();
    let image = wan_media::RgbImage::new(70, 64, vec![9; 70 * 64 * 3]).unwrap();
    let mut writer =
        wan_media::VideoWriter::create(&sandbox.path("odd.mp4"), 70, 64, wan_media::VideoOptions::default())
            .unwrap();
    writer.push(image.data()).unwrap();
    writer.finish().unwrap();
    let sample = crate::support::sample_image();
    let with_image = ["--segments", "2", "--model", "tiny", "--image", sample.to_str().unwrap()];
    let rows: [(&[&str], i32, &str); 8] = [
        (&with_image, 2, "--segments: found no --extend"),
        (&["--extend", "odd.mp4", "--model", "tiny"], 2, "found a video of 70x64, expected multiples of 16"),
        (&["--extend", "absent.mp4"], 1, "absent.mp4: no such file"),
        (&["--extend", "clip.mp4", "--frames", "1"], 2, "frames: found 1, expected at least 5"),
        (&["--extend", "clip.mp4", "--segments", "0"], 2, "--segments"),
        (&["--segments", "2", "--model", "tiny"], 2, "--extend"),
        (&["--extend", "clip.mp4", "--width", "128"], 2, "cannot be used with"),
        (&["--extend", "clip.mp4", "--output", "clip.mp4", "--overwrite"], 2, "which is also --extend"),
    ];
    for (args, code, message) in rows {
        assert_fails(&sandbox.run(args), code, message);
    }
    assert_eq!(sandbox.names(), ["clip.mp4", "odd.mp4"]);
}
