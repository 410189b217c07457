//! Many videos from one command: the same bytes as one by one, failures that stop nothing, and going on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Sandbox, assert_fails, sample_image, stderr, stdout, tiny_args};

fn read(sandbox: &Sandbox, name: &str) -> Vec<u8> {
    std::fs::read(sandbox.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Arguments of a batch over a small job.
fn batch(file: &str, more: &[&str]) -> Vec<String> {
    tiny_args(&[&["!--output", "!--prompt", "--batch", file], more].concat())
}

fn write(sandbox: &Sandbox, lines: &[&str]) {
    std::fs::write(sandbox.path("jobs.jsonl"), lines.join("\n")).unwrap();
}

/// Runs until a line with `text` is said, does something meanwhile, interrupts, and returns the last line.
pub fn interrupted(sandbox: &Sandbox, args: &[String], text: &str, meanwhile: impl FnOnce()) -> String {
    let mut child = sandbox
        .command()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.by_ref().any(|line| line.contains(text)), "`{text}` was never said");
    meanwhile();
    crate::support::signal(child.id(), "INT");
    let last = said.last().unwrap_or_default();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    crate::troubleshooting::assert_covered(&last);
    last
}

#[test]
fn seeds_that_are_left_are_named() {
    let sandbox = Sandbox::new();
    let args = tiny_args(&["--count", "3", "--seed", "7", "--steps", "200", "--output", "a.mp4"]);
    let last = interrupted(&sandbox, &args, "video 2", || {});
    follow(&sandbox, &args, &last);
    // On a busy machine the second video has come to its first step, and then has a resume file.
    let resume = last.contains("--resume").then_some("a-0002.mp4.resume.safetensors");
    let mut made = vec!["a-0001.mp4", "a-0002.mp4", "a-0003.mp4"];
    made.extend(resume);
    made.sort_unstable();
    assert_eq!(sandbox.names(), made);
    single(&sandbox, &["8", "9"], 2);
}

/// With --overwrite, too, what is there is left alone.
#[test]
fn a_video_that_was_stopped_is_not_made_twice() {
    let sandbox = Sandbox::new();
    let args =
        tiny_args(&["--count", "3", "--seed", "7", "--steps", "200", "--output", "a.mp4", "--overwrite"]);
    let last = interrupted(&sandbox, &args, "step 2 of 200", || {});
    assert!(last.contains("--resume a-0001.mp4.resume.safetensors; then 2 of 3 to go: "), "{last}");
    follow(&sandbox, &args, &last);
    let made = ["a-0001.mp4", "a-0001.mp4.resume.safetensors", "a-0002.mp4", "a-0003.mp4"];
    assert_eq!(sandbox.names(), made);
    single(&sandbox, &["7", "8", "9"], 1);
    let refused = sandbox.tiny(&["--count", "2", "--count-from", "4294967295"]);
    assert_fails(&refused, 2, "count-from: found 2 numbers");
    assert_fails(&sandbox.tiny(&["--count-from", "2", "--batch", "x", "!--output"]), 2, "--count");
}

/// Does what the program said when it was stopped; no video is made that was there.
fn follow(sandbox: &Sandbox, args: &[String], advice: &str) {
    let videos = |sandbox: &Sandbox| -> Vec<(String, std::time::SystemTime)> {
        let names = sandbox.names().into_iter().filter(|name| name.ends_with(".mp4"));
        names.map(|n| (n.clone(), sandbox.path(&n).metadata().unwrap().modified().unwrap())).collect()
    };
    let mut before = videos(sandbox);
    if let Some((_, resume)) = advice.split_once("--resume ") {
        sandbox.ok(&["--resume", resume.split(';').next().unwrap()]);
        assert_eq!(videos(sandbox).len(), before.len() + 1, "{advice}");
        before = videos(sandbox);
    }
    let (_, options) = advice.split_once("the same command with ").unwrap_or_else(|| panic!("{advice}"));
    let more = options.split_whitespace().map(str::to_string);
    sandbox.ok(&args.iter().cloned().chain(more).collect::<Vec<_>>());
    let after = videos(sandbox);
    assert!(before.iter().all(|video| after.contains(video)), "{advice}: {before:?} {after:?}");
}

/// Asserts that the numbered videos from `first` on are those of these seeds.
fn single(sandbox: &Sandbox, seeds: &[&str], first: usize) {
    for (seed, number) in seeds.iter().zip(first..) {
        let one = Sandbox::new();
        one.ok(&tiny_args(&["--seed", seed, "--steps", "200"]));
        assert!(read(&one, "out.mp4") == read(sandbox, &format!("a-{number:04}.mp4")), "seed {seed}");
    }
}

#[test]
fn count_makes_a_video_of_each_seed() {
    let sandbox = Sandbox::new();
    let args = ["--count", "3", "--seed", "7", "--output", "a.mp4", "--save-latents", "l.safetensors"];
    let output = sandbox.ok(&tiny_args(&args));
    assert_eq!(stdout(&output), "a-0001.mp4\na-0002.mp4\na-0003.mp4\n");
    for (index, seed) in ["7", "8", "9"].iter().enumerate() {
        let name = format!("one-{index}.mp4");
        sandbox.ok(&tiny_args(&[
            "--seed",
            seed,
            "--output",
            &name,
            "--save-latents",
            "one.safetensors",
            "--overwrite",
        ]));
        assert!(read(&sandbox, &name) == read(&sandbox, &format!("a-{:04}.mp4", index + 1)), "seed {seed}");
        assert!(
            read(&sandbox, "one.safetensors") == read(&sandbox, &format!("l-{:04}.safetensors", index + 1))
        );
    }
    let numbered = ["!--output", "--output-prefix", "clip", "--count", "2", "!--seed", "--quiet"];
    assert_eq!(stdout(&sandbox.ok(&tiny_args(&numbered))), "clip_00001.mp4\nclip_00002.mp4\n");
    assert!(read(&sandbox, "clip_00001.mp4") != read(&sandbox, "clip_00002.mp4"));

    let before = sandbox.names();
    let senseless = sandbox.tiny(&["--count", "3", "--steps", "0"]);
    assert_fails(&senseless, 2, "steps: found 0");
    assert_eq!(stderr(&senseless).matches("steps: found 0").count(), 1, "{}", stderr(&senseless));
    assert_fails(&sandbox.tiny(&["--count", "0"]), 2, "--count");
    let largest = u64::MAX.to_string();
    assert_fails(&sandbox.tiny(&["--count", "2", "--seed", &largest]), 2, "found 2 seeds");
    assert_eq!(sandbox.names(), before);
}

/// Lines differ in everything that is remembered between jobs: prompt, image, size, seed, LoRA.
#[test]
fn a_batch_equals_single_runs_byte_for_byte() {
    let sandbox = Sandbox::new();
    let lora = crate::lora::write(&sandbox, "a.safetensors");
    let lora = lora.to_str().unwrap();
    let mirrored = image::open(sample_image()).unwrap().fliph();
    mirrored.save(sandbox.path("mirrored.png")).unwrap();
    let jobs: [&[(&str, &str)]; 7] = [
        &[("prompt", "a red balloon")],
        &[("prompt", "a red balloon"), ("seed", "5")],
        &[("prompt", "a blue square"), ("image", "mirrored.png")],
        &[("prompt", "a red balloon"), ("lora", lora)],
        &[("prompt", "a red balloon"), ("image", "mirrored.png"), ("width", "96")],
        &[("prompt", "a red balloon"), ("noise-aug-strength", "0.3"), ("seed", "6")],
        &[
            ("prompt", "a red balloon"),
            ("latent-strength", "0.5"),
            ("clip-embed-strength", "0.5"),
            ("cfg", "1"),
        ],
    ];
    let lines: Vec<String> = (0..)
        .zip(jobs)
        .map(|(index, job)| {
            let value = |text: &str| text.parse::<Value>().unwrap_or_else(|_| text.into());
            let mut line: serde_json::Map<String, Value> = job
                .iter()
                .map(|(key, text)| {
                    let value = if *key == "lora" { vec![text.to_string()].into() } else { value(text) };
                    (key.to_string(), value)
                })
                .collect();
            line.insert("output".into(), format!("batch-{index}.mp4").into());
            line.insert("save-latents".into(), format!("batch-{index}.safetensors").into());
            Value::Object(line).to_string()
        })
        .collect();
    write(&sandbox, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let output = sandbox.ok(&batch("jobs.jsonl", &[]));
    assert_eq!(stdout(&output).lines().count(), jobs.len());
    assert!(stderr(&output).contains("batch jobs.jsonl: 7 done, 0 failed"), "{}", stderr(&output));
    for (index, job) in jobs.iter().enumerate() {
        let (video, latents) = (format!("one-{index}.mp4"), format!("one-{index}.safetensors"));
        let options: Vec<(String, &str)> = job.iter().map(|(k, v)| (format!("--{k}"), *v)).collect();
        let mut args: Vec<&str> = options.iter().flat_map(|(k, v)| [k.as_str(), v]).collect();
        args.extend(["--output", &video, "--save-latents", &latents]);
        sandbox.ok(&tiny_args(&args));
        assert!(read(&sandbox, &video) == read(&sandbox, &format!("batch-{index}.mp4")), "{job:?}");
        assert!(read(&sandbox, &latents) == read(&sandbox, &format!("batch-{index}.safetensors")), "{job:?}");
    }
}

#[test]
fn a_failed_line_is_reported_and_the_rest_goes_on() {
    let sandbox = Sandbox::new();
    let lines = [
        r#"{"prompt": "one"}"#,
        r#"{"prompt": "two", "stepz": 3}"#,
        "",
        "no JSON",
        r#"{"prompt": "three", "image": "absent.png"}"#,
        r#"{"prompt": "four", "steps": 0}"#,
        r#"{"prompt": "five"}"#,
    ];
    write(&sandbox, &lines);
    let output = sandbox.run(&batch("jobs.jsonl", &["--output-prefix", "clip", "--progress", "json"]));
    assert_fails(
        &output,
        1,
        "batch jobs.jsonl: 4 of 6 failed (line 2, line 4, line 6, line 5); correct them and give the same command again",
    );
    let errors = stderr(&output);
    for part in [
        "line 2: not a job: unknown key `stepz` (did you mean `steps`?)",
        "line 5: absent.png: no such file",
        "line 6: steps: found 0",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    let text = stdout(&output);
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let entries = |kind: &str, key: &str| -> Vec<u64> {
        let events = events.iter().filter(|e| e["event"] == kind);
        events.map(|e| e[key].as_u64().unwrap_or_default()).collect()
    };
    let of = |kind: &str| entries(kind, "line");
    assert_eq!(of("begun"), [2, 4, 6, 1, 5, 7], "what makes no sense is told first");
    assert_eq!(entries("begun", "index"), [2, 3, 5, 1, 4, 6], "of six jobs, whatever lines are empty");
    assert_eq!(of("done"), [1, 7]);
    assert_eq!(of("failed"), [2, 4, 6, 5]);
    assert!(events.iter().filter(|e| e["event"] == "step").all(|e| e["of"] == 6 && e["line"].is_number()));
    let summary = events.last().unwrap();
    assert_eq!((&summary["event"], &summary["done"]), (&"summary".into(), &2.into()));
    assert_eq!(summary["failed"].as_array().unwrap().len(), 4);

    // Corrected, only what failed is made.
    write(&sandbox, &[lines[0], r#"{"prompt": "two", "steps": 3}"#, lines[6]]);
    let output = sandbox.ok(&batch("jobs.jsonl", &["--output-prefix", "clip"]));
    assert_eq!(stdout(&output), "clip_00003.mp4\n");
    assert!(stderr(&output).contains("1 done, 2 done before, 0 failed"), "{}", stderr(&output));
    assert!(stderr(&output).contains("line 1: done before: "));
    // A video that was deleted is made again, under the next number.
    std::fs::remove_file(sandbox.path("clip_00001.mp4")).unwrap();
    assert_eq!(stdout(&sandbox.ok(&batch("jobs.jsonl", &["--output-prefix", "clip"]))), "clip_00004.mp4\n");
    // And so is everything for another command.
    let output = sandbox.ok(&batch("jobs.jsonl", &["--output-prefix", "clip", "--steps", "1", "--quiet"]));
    assert_eq!(stdout(&output).lines().count(), 2, "the line with steps of its own is the same");
}

#[test]
fn a_batch_that_was_stopped_goes_on_within_the_line() {
    let sandbox = Sandbox::new();
    write(
        &sandbox,
        &[
            r#"{"prompt": "one", "output": "one.mp4", "steps": 1}"#,
            r#"{"prompt": "two", "output": "two.mp4", "steps": 300}"#,
            r#"{"prompt": "three", "output": "three.mp4", "steps": 1}"#,
        ],
    );
    let last = interrupted(&sandbox, &batch("jobs.jsonl", &[]), "step 3 of 300", || {
        let again = sandbox.run(&batch("jobs.jsonl", &[]));
        assert_fails(&again, 2, "batch jobs.jsonl: another run is working on it");
    });
    assert!(
        last.contains("batch jobs.jsonl: line 2: stopped after step")
            && last.contains("the same command again goes on"),
        "{last}"
    );
    assert_eq!(sandbox.names(), ["jobs.jsonl", "jobs.state.jsonl", "one.mp4", "two.mp4.resume.safetensors"]);

    let output = sandbox.ok(&batch("jobs.jsonl", &[]));
    let text = stderr(&output);
    assert!(text.contains("line 1: done before") && text.contains("resuming after step"), "{text}");
    assert_eq!(sandbox.names(), ["jobs.jsonl", "jobs.state.jsonl", "one.mp4", "three.mp4", "two.mp4"]);
    let whole = ["--prompt", "two", "--steps", "300", "--output", "whole.mp4"];
    sandbox.ok(&tiny_args(&whole));
    assert!(read(&sandbox, "two.mp4") == read(&sandbox, "whole.mp4"));
    assert_eq!(stdout(&sandbox.ok(&batch("jobs.jsonl", &["--quiet"]))), "", "all is done");
}

/// What was kept of a line as it was before is neither used nor destroyed.
#[test]
fn a_corrected_line_begins_anew() {
    let sandbox = Sandbox::new();
    let line = |prompt: &str| {
        write(&sandbox, &[&format!(r#"{{"prompt": "{prompt}", "output": "a.mp4", "steps": 300}}"#)]);
    };
    line("the red circle moves right");
    interrupted(&sandbox, &batch("jobs.jsonl", &[]), "step 3 of 300", || {});
    let old = read(&sandbox, "a.mp4.resume.safetensors");
    line("the blue square moves left");
    let failed = sandbox.run(&batch("jobs.jsonl", &["--max-ram", "2MiB"]));
    assert!(stderr(&failed).contains("line 1: not enough memory"), "{}", stderr(&failed));
    // Stopped itself, it is kept beside the other.
    interrupted(&sandbox, &batch("jobs.jsonl", &[]), "step 3 of 300", || {});
    let kept = ["a.mp4.resume-2.safetensors", "a.mp4.resume.safetensors"];
    assert_eq!(sandbox.names()[..2], kept);
    let text = stderr(&sandbox.ok(&batch("jobs.jsonl", &[])));
    assert!(text.contains("resuming after step"), "{text}");
    assert_eq!(sandbox.names(), ["a.mp4", kept[1], "jobs.jsonl", "jobs.state.jsonl"]);
    assert!(read(&sandbox, kept[1]) == old);
    sandbox.ok(&tiny_args(&["--prompt", "the blue square moves left", "--steps", "300"]));
    assert!(read(&sandbox, "a.mp4") == read(&sandbox, "out.mp4"));
    let text = stderr(&sandbox.ok(&batch("jobs.jsonl", &[])));
    assert!(text.contains("line 1: done before"), "{text}");

    // The old line's own file still goes on with it.
    line("the red circle moves right");
    let text = stderr(&sandbox.ok(&batch("jobs.jsonl", &["--overwrite"])));
    assert!(text.contains("resuming after step"), "{text}");
    let red = ["--prompt", "the red circle moves right", "--steps", "300", "--output", "red.mp4"];
    sandbox.ok(&tiny_args(&red));
    assert!(read(&sandbox, "a.mp4") == read(&sandbox, "red.mp4"));
}

#[test]
fn a_corrected_line_that_fails_early_is_still_its_own() {
    let sandbox = Sandbox::new();
    let line = |prompt: &str| {
        write(&sandbox, &[&format!(r#"{{"prompt": "{prompt}", "output": "a.mp4", "steps": 300}}"#)]);
    };
    line("the red circle moves right");
    interrupted(&sandbox, &batch("jobs.jsonl", &[]), "step 3 of 300", || {});
    line("the blue square moves left");
    assert_eq!(sandbox.run(&batch("jobs.jsonl", &["--max-ram", "2MiB"])).status.code(), Some(1));
    let text = stderr(&sandbox.ok(&batch("jobs.jsonl", &[])));
    sandbox.ok(&tiny_args(&["--prompt", "the blue square moves left", "--steps", "300"]));
    assert!(read(&sandbox, "a.mp4") == read(&sandbox, "out.mp4"), "the old line's video");
    assert!(text.contains("a.mp4.resume.safetensors keeps another job that was stopped"), "{text}");
}

/// One preview for all videos, and for the same command again; another picture is never replaced.
#[test]
fn a_preview_takes_the_place_of_a_preview() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--count", "2", "--output", "a.mp4", "--preview", "p.png"]));
    let first = read(&sandbox, "p.png");
    write(&sandbox, &[r#"{"prompt": "one"}"#, r#"{"prompt": "two", "steps": 3}"#]);
    let args = batch("jobs.jsonl", &["--preview", "p.png", "--output-prefix", "b", "--quiet"]);
    assert_eq!(stdout(&sandbox.ok(&args)), "b_00001.mp4\nb_00002.mp4\n");
    assert!(read(&sandbox, "p.png") != first);
    sandbox.ok(&tiny_args(&["--contact-sheet", "sheet.png"]));
    let refused = sandbox.tiny(&["--output", "c.mp4", "--preview", "sheet.png"]);
    assert_fails(&refused, 2, "sheet.png: exists already");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let sandbox = Sandbox::new();
    write(&sandbox, &["\u{feff}{\"prompt\": \"one\"}", r#"{"prompt": "two"}"#]);
    let args = batch("jobs.jsonl", &["--output-prefix", "b", "--quiet"]);
    assert_eq!(stdout(&sandbox.ok(&args)), "b_00001.mp4\nb_00002.mp4\n");
}

/// Noise from a file leaves the seed nothing to do, but for what draws noise of its own.
#[test]
fn count_makes_no_video_twice() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["probe", "noise", "--seed", "1", "--shape", "16,2,8,8", "--output", "n.safetensors"]);
    let count = ["--count", "2", "--noise", "n.safetensors", "--output", "a.mp4"];
    assert_fails(&sandbox.tiny(&count), 2, "--noise: found one beside --count");
    assert_eq!(sandbox.names(), ["n.safetensors"]);
    sandbox.ok(&tiny_args(&[&count[..], &["--scheduler", "dpm++_sde"]].concat()));
    assert!(read(&sandbox, "a-0001.mp4") != read(&sandbox, "a-0002.mp4"));
}

#[test]
fn a_batch_without_jobs_is_refused() {
    let sandbox = Sandbox::new();
    assert_fails(&sandbox.run(&batch("absent.jsonl", &[])), 2, "batch absent.jsonl: ");
    write(&sandbox, &["", "  "]);
    assert_fails(&sandbox.run(&batch("jobs.jsonl", &[])), 2, "found no lines");
    for more in [["--output", "a.mp4"], ["--count", "2"], ["--save-latents", "l"]] {
        assert_fails(&sandbox.run(&batch("jobs.jsonl", &more)), 2, "cannot be used with");
    }
    assert_eq!(sandbox.names(), ["jobs.jsonl"]);
}
