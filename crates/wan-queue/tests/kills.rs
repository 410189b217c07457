//! A process that is killed at any moment loses nothing that it acknowledged.
//!
//! The child works on a queue at random and writes each change to its output before it asks for it (`try`) and after
//! it is acknowledged (`done`). The parent kills it with SIGKILL at a random moment, opens the queue and compares.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use wan_queue::{EmbeddedQueue, JobQueue, Limits, Outcome, Page, Priority, Submission, Verdict};

const FOLDER: &str = "WAN_QUEUE_KILLED_FOLDER";
const SEED: &str = "WAN_QUEUE_KILLED_SEED";

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

fn say(what: &str, change: &str, id: &str) {
    // One write each: a line is there whole or not at all.
    let line = format!("@{what} {change} {id}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// The process that is killed; does nothing when the test runner gets here by itself.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let mut random = Random(seed + 1);
    let queue = EmbeddedQueue::open(Path::new(&folder), Limits::default()).unwrap();
    println!();
    let object = to_raw_value(&json!({})).unwrap();
    let mut held = None;
    for n in 0.. {
        match random.below(6) {
            0 | 1 => {
                let prompt_id = format!("{seed}-{n}");
                say("try", "submit", &prompt_id);
                let priority =
                    [Priority::Next, Priority::Front, Priority::Number(2.5)][random.below(3) as usize];
                let job = Submission {
                    prompt_id: prompt_id.clone(),
                    priority,
                    prompt: object.clone(),
                    extra_data: object.clone(),
                    outputs: vec!["1".into()],
                };
                queue.submit(&job).unwrap();
                say("done", "submit", &prompt_id);
            }
            2 if held.is_none() => {
                held = queue.claim("child", Duration::from_secs(60)).unwrap();
                if let Some(claim) = &held {
                    say("done", "claim", &claim.item.prompt_id);
                }
            }
            3 => {
                if let Some(claim) = &held {
                    queue.save_state(&claim.lease, &object).unwrap();
                }
            }
            4 => {
                let snapshot = queue.snapshot().unwrap();
                if let Some(item) = snapshot.pending.first().filter(|_| random.below(8) == 0) {
                    say("try", "delete", &item.prompt_id);
                    queue.delete_pending(std::slice::from_ref(&item.prompt_id)).unwrap();
                    say("done", "delete", &item.prompt_id);
                }
            }
            _ => {
                if let Some(claim) = held.take() {
                    let outcome = Outcome {
                        verdict: Verdict::Success,
                        outputs: object.clone(),
                        messages: object.clone(),
                        meta: object.clone(),
                    };
                    say("try", "finish", &claim.item.prompt_id);
                    queue.finish(&claim.lease, &outcome).unwrap();
                    say("done", "finish", &claim.item.prompt_id);
                }
            }
        }
    }
}

/// What is known of each id from all children: the last change that was tried, and whether it was acknowledged.
type Known = HashMap<String, (String, bool)>;

/// Starts a child and kills it; returns the job that it held.
fn kill_one(folder: &Path, seed: u64, known: &mut Known) -> Option<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = lines.filter(|line| line.starts_with('@'));
    // So far into its work, and then at any moment of a change.
    let mut random = Random(seed.wrapping_mul(77) + 5);
    let mut lines: Vec<String> = said.by_ref().take(1 + random.below(60) as usize).collect();
    std::thread::sleep(Duration::from_micros(random.below(5_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    lines.extend(said);
    let mut held = None;
    for line in lines {
        let words: Vec<&str> = line[1..].split(' ').collect();
        let [what, change, id] = words[..] else { panic!("{line}") };
        match change {
            "claim" => {
                held = Some(id.to_owned());
                continue;
            }
            "finish" => held = None,
            _ => {}
        }
        known.insert(id.to_owned(), (change.to_owned(), what == "done"));
    }
    held
}

#[test]
fn thirty_kills_lose_nothing_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut known = Known::new();
    let (mut finished, mut lost) = (0, 0);
    for seed in 0..30 {
        let held = kill_one(folder.path(), seed, &mut known);
        let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
        let snapshot = queue.snapshot().unwrap();
        assert!(snapshot.running.is_empty());
        let queued: Vec<String> = snapshot.pending.into_iter().map(|item| item.prompt_id).collect();
        let history: Vec<String> =
            queue.history(Page::default()).unwrap().0.into_iter().map(|entry| entry.item.prompt_id).collect();
        let (in_queue, in_history): (BTreeSet<_>, BTreeSet<_>) =
            (queued.iter().collect(), history.iter().collect());
        assert_eq!((in_queue.len(), in_history.len()), (queued.len(), history.len()), "an id is there twice");
        assert!(in_queue.is_disjoint(&in_history), "an id is in both");
        assert!(in_queue.union(&in_history).all(|id| known.contains_key(*id)), "an id nobody submitted");
        for (id, (change, acknowledged)) in &known {
            let places = (in_queue.contains(id), in_history.contains(id));
            let allowed: &[(bool, bool)] = match (change.as_str(), acknowledged) {
                ("submit", true) => &[(true, false)],
                ("submit", false) => &[(true, false), (false, false)],
                ("delete", true) => &[(false, false)],
                ("delete", false) => &[(true, false), (false, false)],
                ("finish", true) => &[(false, true)],
                _ => &[(true, false), (false, true)],
            };
            assert!(allowed.contains(&places), "{id}: {change}, acknowledged {acknowledged}: {places:?}");
        }
        finished = in_history.len();
        if let Some(held) = held {
            assert_eq!(queued.first(), Some(&held), "a job that was begun is next");
            lost += 1;
        }
    }
    // The test is about something: jobs were finished, and some were lost half-way.
    assert!(finished > 5, "{finished} jobs finished");
    assert!(lost > 0, "no child was killed while it held a job");
}
