//! A stream of jobs whose process is killed again and again: every accepted job ends exactly once, with its file whole
//! and the bytes of an undisturbed run.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wan_media::probe::probe;
use wan_queue::{EmbeddedQueue, JobQueue, Limits, Page};

use crate::support::{Ear, Shop, outputs, status, submit};

const FOLDER: &str = "WAN_SERVE_KILLED_FOLDER";
const KILLS: usize = 30;

/// The process that is killed: works on what it finds. Does nothing when the test runner gets here by itself.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    println!();
    let shop = Shop::open(Path::new(&folder), &Ear::new(|_, event| println!("@{}", event.name())), 1000);
    loop {
        let seen = shop.queue.revision();
        shop.queue.wait_for_change(seen, Duration::from_secs(60));
    }
}

fn graph(n: u64) -> Value {
    let schedulers = ["dpm++", "unipc", "euler", "dpm++_sde"];
    json!({"seed": n % 4, "steps": 4, "scheduler": schedulers[(n % 4) as usize]})
}

/// The video of each graph, from a run that nothing disturbs.
fn undisturbed() -> HashMap<u64, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &Ear::new(|_, _| {}), 5);
    (0..4)
        .map(|n| {
            submit(&*shop.queue, &n.to_string(), graph(n));
            let made = outputs(&shop.wait_for(&n.to_string()));
            (n, fs::read(shop.output(made["54"]["gifs"][0]["filename"].as_str().unwrap())).unwrap())
        })
        .collect()
}

/// When a child is killed.
enum Moment {
    /// So long after it has begun a job.
    After(Duration),
    /// As soon as a step's state is on the disk, which is that of an earlier child's job if that was killed so.
    AtStep,
}

/// Starts a child and kills it.
fn kill_at_work(folder: &Path, moment: Moment) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    match moment {
        Moment::After(delay) => {
            assert!(lines.any(|line| line.starts_with('@')), "the child did nothing");
            std::thread::sleep(delay);
        }
        Moment::AtStep => {
            let kept = |job: fs::DirEntry| job.path().join("checkpoint.safetensors").exists();
            let any = || {
                fs::read_dir(folder.join("work")).is_ok_and(|mut jobs| jobs.any(|job| job.is_ok_and(kept)))
            };
            assert!(lines.any(|line| line.starts_with('@')), "the child did nothing");
            // On a busy machine it can be done with all jobs before anyone looks.
            let deadline = Instant::now() + Duration::from_secs(20);
            while !any() && Instant::now() < deadline {
                assert!(child.try_wait().unwrap().is_none(), "the child has ended");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn thirty_kills_complete_every_job_exactly_once() {
    let expected = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let mut submitted = 0;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for kill in 0..KILLS {
        {
            let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
            for _ in queue.counts().unwrap().pending..3 {
                submit(&queue, &format!("job-{submitted}"), graph(submitted));
                submitted += 1;
            }
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = match kill % 3 {
            0 => Moment::AtStep,
            _ => Moment::After(Duration::from_millis((random >> 33) % 400)),
        };
        kill_at_work(folder.path(), moment);
    }
    let shop = Shop::open(folder.path(), &Ear::new(|_, _| {}), 1000);
    let (mut files, mut resumed) = (BTreeSet::new(), 0);
    for n in 0..submitted {
        let entry = shop.wait_for(&format!("job-{n}"));
        assert_eq!(status(&entry)["completed"], true, "job {n}: {}", status(&entry));
        resumed += usize::from(status(&entry)["messages"][1][1]["nodes"] != json!([]));
        let made = outputs(&entry);
        let told = &made["54"]["gifs"][0];
        let name = told["filename"].as_str().unwrap();
        assert!(files.insert(name.to_owned()), "{name} is told twice");
        assert!(files.insert(told["workflow"].as_str().unwrap().to_owned()));
        let video = shop.output(name);
        assert_eq!(probe(&video).unwrap().frames, 5);
        assert!(fs::read(&video).unwrap() == expected[&(n % 4)], "job {n} differs from an undisturbed run");
    }
    assert!(resumed > 0, "no job was resumed");
    shop.worker.shut_down();
    assert_eq!(shop.queue.history(Page::default()).unwrap().0.len() as u64, submitted);
    assert_eq!(shop.queue.counts().unwrap().remaining(), 0);
    // Nothing besides what was told of.
    let there: BTreeSet<String> = fs::read_dir(&shop.folders.output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, files);
    assert_eq!(fs::read_dir(&shop.folders.work).unwrap().count(), 0);
}
