//! What clients hear of jobs, and what jobs leave.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use wan_media::probe::probe;
use wan_queue::{EmbeddedQueue, JobQueue, Limits};
use wan_serve::worker::{Event, Folders};

use crate::support::{Ear, Shop, outputs, status, submit, wait_for};

fn silent() -> Ear {
    Ear::new(|_, _| {})
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_job_is_told_in_comfyuis_order_and_leaves_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Arc::new(EmbeddedQueue::open(folder.path(), Limits::default()).unwrap());
    // The history has the job, and the queue has it no more, before anybody hears that it has ended.
    let seen = queue.clone();
    let ear = Ear::new(move |job, event| {
        let over = matches!(event, Event::ExecutionSuccess { .. } | Event::Executing { node: None });
        let snapshot = seen.snapshot().unwrap();
        assert_eq!(snapshot.running.is_empty(), over, "{event:?}");
        assert_eq!(seen.history_entry(&job.prompt_id).unwrap().is_some(), over, "{event:?}");
    });
    submit(&*queue, "a", json!({"seed": 7, "steps": 2}));
    let shop = Shop::over(queue, folder.path(), &ear, 5);
    let entry = shop.wait_for("a");
    shop.worker.shut_down();

    let heard = ear.heard.lock().unwrap().clone();
    let line = |(name, data): &(String, serde_json::Value)| match name.as_str() {
        "status" => format!("status {data}"),
        "executing" => format!("executing {}", data["node"]),
        "executed" => format!("executed {}", data["node"]),
        "progress" => format!("progress {} {}/{}", data["node"], data["value"], data["max"]),
        name => name.to_owned(),
    };
    let mut lines: Vec<String> = heard.iter().map(line).filter(|l| l != "progress_state").collect();
    // A slow job's status is told again and again.
    let mut last = String::new();
    lines.retain(|line| !line.starts_with("status") || std::mem::replace(&mut last, line.clone()) != *line);
    let expected = "status 1|execution_start|execution_cached|executing \"43\"|executing \"42\"|executing \"49\"\
        |executing \"50\"|progress \"50\" 1/2|progress \"50\" 2/2\
        |executing \"52\"|progress \"52\" 1/2|progress \"52\" 2/2\
        |executing \"53\"|progress \"53\" 1/2|progress \"53\" 2/2\
        |executing \"38\"|executed \"38\"|executing \"54\"|progress \"54\" 1/5|progress \"54\" 2/5\
        |progress \"54\" 3/5|progress \"54\" 4/5|progress \"54\" 5/5|executed \"54\"\
        |execution_success|status 0|executing null";
    assert_eq!(lines.join("|"), expected);
    let mut states = heard.iter().filter(|(name, _)| name == "progress_state");
    let last = states.next_back().unwrap().1["nodes"].as_object().unwrap().clone();
    assert_eq!(last.keys().collect::<Vec<_>>(), ["43", "42", "49", "50", "52", "53", "38", "54"]);
    assert_eq!(last["52"]["value"], 2.0);
    assert!(last.values().all(|node| node["state"] == "finished" && node["value"] == node["max"]));
    for (name, data) in heard.iter().filter(|(name, _)| name != "status") {
        assert_eq!(data["prompt_id"], "a", "{name}");
    }
    let previews = ear.previews.lock().unwrap().clone();
    assert_eq!(previews.len(), 2, "one a step");
    assert!(previews.iter().all(|jpeg| jpeg.starts_with(&[0xff, 0xd8])));

    let made = json!({
        "38": {"text": ["5x64x64"]},
        "54": {"gifs": [{
            "filename": "clip_00001.mp4", "subfolder": "", "type": "output", "format": "video/h264-mp4",
            "frame_rate": 16.0, "workflow": "clip_00001.png", "fullpath": "output/clip_00001.mp4",
        }]},
    });
    assert_eq!(outputs(&entry), made);
    let status = status(&entry);
    assert_eq!((&status["status_str"], &status["completed"]), (&json!("success"), &json!(true)));
    let kinds: Vec<_> = status["messages"].as_array().unwrap().iter().map(|m| m[0].clone()).collect();
    assert_eq!(kinds, ["execution_start", "execution_cached", "execution_success"]);
    assert_eq!(names(&shop.folders.output), ["clip_00001.mp4", "clip_00001.png"]);
    assert!(names(&shop.folders.work).is_empty());
    let video = shop.folders.output.join("clip_00001.mp4");
    let info = probe(&video).unwrap();
    assert_eq!((info.frames, info.width, info.height), (5, 64, 64));
    for file in ["clip_00001.mp4", "clip_00001.png"] {
        let bytes = fs::read(shop.folders.output.join(file)).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(br#"{"seed":7,"steps":2}"#) && has(br#"{"nodes":[]}"#), "{file}");
    }
}

#[test]
fn further_outputs_follow_comfyuis_names() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &silent(), 5);
    fs::create_dir_all(shop.output("vid")).unwrap();
    fs::write(shop.output("vid/X_00003.gif"), "").unwrap();
    submit(&*shop.queue, "a", json!({"frames": true, "prefix": "vid/x"}));
    let made = outputs(&shop.wait_for("a"));
    assert_eq!(made["54"]["gifs"][0]["filename"], "x_00004.mp4");
    assert_eq!(made["54"]["gifs"][0]["fullpath"], "output/vid/x_00004.mp4");
    let image = |n: u32| json!({"filename": format!("x_{n:05}_.png"), "subfolder": "vid", "type": "output"});
    assert_eq!(made["55"], json!({"images": (5..10).map(image).collect::<Vec<_>>()}));
    let video = json!({"filename": "x_00010_.mp4", "subfolder": "vid", "type": "output"});
    assert_eq!(made["56"], json!({"images": [video], "animated": [true]}));
    for n in 5..10 {
        assert!(shop.output("vid").join(format!("x_{n:05}_.png")).is_file());
    }
}

#[test]
fn whatever_goes_wrong_in_a_job_ends_that_job_only() {
    let folder = tempfile::tempdir().unwrap();
    let ear = silent();
    let shop = Shop::open(folder.path(), &ear, 5);
    let bad = [
        ("refused", json!({"refuse": true}), "the graph makes no sense", ""),
        ("panic", json!({"panic": true}), "internal error: a defect", ""),
        ("huge", json!({"huge": true}), "not enough memory: ", "49"),
        ("riflex", json!({"riflex": 999}), "riflex-freq-index: found 999", "49"),
        ("escape", json!({"prefix": "../x"}), "filename_prefix: found \"../x\"", "54"),
    ];
    for (id, graph, _, _) in &bad {
        submit(&*shop.queue, id, graph.clone());
    }
    submit(&*shop.queue, "good", json!({}));
    for (id, _, reason, node) in &bad {
        let status = status(&shop.wait_for(id));
        let last = status["messages"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&status["status_str"], &last[0]), (&json!("error"), &json!("execution_error")), "{id}");
        assert_eq!(&last[1]["node_id"], node, "{id}");
        let message = last[1]["exception_message"].as_str().unwrap();
        assert!(message.starts_with(reason) && message.ends_with('\n'), "{message}");
        assert_eq!(last[1]["traceback"], json!([]));
    }
    assert_eq!(status(&shop.wait_for("good"))["status_str"], "success");
    shop.worker.shut_down();
    assert_eq!(names(&shop.folders.output), ["clip_00001.mp4", "clip_00001.png"]);
    assert!(names(&shop.folders.work).is_empty());
}

#[test]
fn a_job_stops_within_a_step_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Arc::new(EmbeddedQueue::open(folder.path(), Limits::default()).unwrap());
    let steps = Arc::new(AtomicUsize::new(0));
    let (counted, asked) = (steps.clone(), queue.clone());
    let ear = Ear::new(move |job, event| {
        if let Event::Progress { node, .. } = event
            && (node.as_str(), &*job.prompt_id) == ("52", "long")
            && counted.fetch_add(1, Ordering::SeqCst) == 2
        {
            assert!(asked.cancel(Some("next")).unwrap().is_empty());
            assert_eq!(asked.cancel(None).unwrap(), ["long"]);
        }
    });
    let shop = Shop::over(queue, folder.path(), &ear, 5);
    submit(&*shop.queue, "long", json!({"steps": 2000}));
    submit(&*shop.queue, "next", json!({}));
    let entry = shop.wait_for("long");
    let status = status(&entry);
    let last = status["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last[0], &last[1]["node_id"]), (&json!("execution_interrupted"), &json!("52")));
    assert_eq!(last[1]["executed"], json!(["43", "42", "49", "50"]));
    assert_eq!((&status["completed"], outputs(&entry)), (&json!(false), json!({})));
    assert!(steps.load(Ordering::SeqCst) < 1000);
    shop.wait_for("next");
    assert_eq!(names(&shop.folders.output), ["clip_00001.mp4", "clip_00001.png"]);
}

#[test]
fn a_shutdown_keeps_the_job_and_the_next_start_ends_it_alike() {
    let whole = tempfile::tempdir().unwrap();
    let graph = json!({"seed": 3, "steps": 40, "scheduler": "dpm++_sde"});
    let shop = Shop::open(whole.path(), &silent(), 5);
    submit(&*shop.queue, "a", graph.clone());
    shop.wait_for("a");
    let expected = fs::read(shop.output("clip_00001.mp4")).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let (third_step, reached) = mpsc::channel();
    let ear = Ear::new(move |_, event| {
        let sampled = matches!(event, Event::Progress { node, .. } if node == "52");
        if sampled && counted.fetch_add(1, Ordering::SeqCst) == 2 && third_step.send(()).is_ok() {
            // Long enough for the wish to stop to arrive.
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let shop = Shop::open(folder.path(), &ear, 5);
    submit(&*shop.queue, "a", graph);
    reached.recv_timeout(Duration::from_secs(60)).unwrap();
    shop.worker.shut_down();
    assert_eq!(shop.queue.counts().unwrap().pending, 1);
    assert!(shop.folders.work.join("1/checkpoint.safetensors").is_file());
    let first_run = steps.swap(0, Ordering::SeqCst);
    assert!(first_run < 40, "the job had ended before it was stopped");

    let queue = shop.queue.clone();
    let shop = Shop::over(queue, folder.path(), &ear, 5);
    let entry = wait_for(&*shop.queue, "a");
    // Only the steps that were left, and the encoders not again.
    assert_eq!(steps.load(Ordering::SeqCst), 40 - first_run);
    let messages = &status(&entry)["messages"];
    assert_eq!(messages[1][1]["nodes"], json!(["43", "42", "49", "50"]));
    assert_eq!(fs::read(shop.output("clip_00001.mp4")).unwrap(), expected);
}

#[test]
fn a_damaged_checkpoint_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
    submit(&queue, "a", json!({}));
    fs::create_dir_all(folder.path().join("work/1")).unwrap();
    fs::create_dir_all(folder.path().join("work/77")).unwrap();
    fs::write(folder.path().join("work/1/checkpoint.safetensors"), "not a checkpoint").unwrap();
    let shop = Shop::over(Arc::new(queue), folder.path(), &silent(), 5);
    assert_eq!(status(&shop.wait_for("a"))["status_str"], "success");
    assert!(!folder.path().join("work/77").exists(), "nobody's folder is removed");
}

#[test]
fn a_job_that_brings_the_server_down_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
    submit(&queue, "a", json!({}));
    drop(queue);
    for _ in 0..2 {
        let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
        queue.claim("lost", Duration::from_secs(60)).unwrap().unwrap();
    }
    let shop = Shop::open(folder.path(), &silent(), 2);
    let status = status(&shop.wait_for("a"));
    let message = status["messages"][2][1]["exception_message"].as_str().unwrap();
    assert!(message.starts_with("the server ended 2 times while it ran this job"), "{message}");
}

/// A job that takes the device with it is found again by the next worker, as after a crash, and so are those behind it.
#[test]
fn a_lost_device_ends_the_worker_and_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Arc::new(EmbeddedQueue::open(folder.path(), Limits::default()).unwrap());
    submit(&*queue, "broken", json!({"panic": true}));
    submit(&*queue, "whole", json!({"seed": 7}));
    let (told, lost) = mpsc::channel();
    let shop = Shop::with_failing_device(queue, folder.path(), &silent(), move || told.send(()).unwrap());
    lost.recv_timeout(Duration::from_secs(120)).expect("the loss is told");
    for job in ["broken", "whole"] {
        assert!(shop.queue.history_entry(job).unwrap().is_none(), "{job}");
    }
    shop.worker.shut_down();
    drop(shop.queue);
    let shop = Shop::open(folder.path(), &silent(), 5);
    assert_eq!(status(&shop.wait_for("broken"))["status_str"], "error");
    let whole = status(&shop.wait_for("whole"));
    assert_eq!(whole["status_str"], "success", "{whole}");
}

#[test]
fn a_job_asks_for_room_for_its_frames_before_it_computes() {
    let folder = tempfile::tempdir().unwrap();
    let frames = 64 * 64 * 5 * 3;
    let shop = Shop::with_room(folder.path(), frames);
    submit(&*shop.queue, "pictures", json!({"frames": true}));
    submit(&*shop.queue, "video", json!({}));
    let status = status(&shop.wait_for("pictures"));
    let last = status["messages"].as_array().unwrap().last().unwrap()[1].clone();
    assert_eq!(
        last["exception_message"],
        format!("needs {}\n", 2 * frames),
        "the frames, and a picture of each"
    );
    assert_eq!((&last["exception_type"], &last["node_id"]), (&json!("DiskFull"), &json!("49")));
    assert_eq!(crate::support::status(&shop.wait_for("video"))["status_str"], "success");
}

#[test]
fn room_is_made_without_the_queue_and_not_of_what_jobs_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders::below(folder.path());
    folders.make_room();
    let there = ["temp/a/b.png", "work/1/frames.rgb", "work/1/5.mp4", "work/2/frames.rgb", "work/2/.x.part"];
    let kept = ["output/c.mp4", "work/2/checkpoint.safetensors", "work/2/5.mp4"];
    for file in there.into_iter().chain(kept) {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    folders.make_room();
    assert_eq!(names(&folders.temp), [""; 0]);
    assert_eq!(names(&folders.work), ["2"]);
    assert_eq!(names(&folders.work.join("2")), ["5.mp4", "checkpoint.safetensors"]);
    assert!(kept.iter().all(|file| folder.path().join(file).exists()));
}
