//! What the embedded queue promises, one process at a time.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use wan_queue::{
    Claim, EmbeddedQueue, JobQueue, Json, Limits, Outcome, Page, Priority, QueueError, Submission, Verdict,
};

const LEASE: Duration = Duration::from_secs(60);

fn raw(value: Value) -> Json {
    to_raw_value(&value).unwrap()
}

fn job(prompt_id: &str, priority: Priority) -> Submission {
    Submission {
        prompt_id: prompt_id.into(),
        priority,
        prompt: raw(json!({"9": {"class_type": "Z"}, "1": {"class_type": "A"}})),
        extra_data: raw(json!({"client_id": "c"})),
        outputs: vec!["9".into()],
    }
}

fn success() -> Outcome {
    Outcome {
        verdict: Verdict::Success,
        outputs: raw(json!({"9": {"gifs": []}})),
        messages: raw(json!([["execution_start", {}]])),
        meta: raw(json!({})),
    }
}

fn open(limits: Limits) -> (tempfile::TempDir, EmbeddedQueue) {
    let folder = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(folder.path(), limits).unwrap();
    (folder, queue)
}

fn claim(queue: &EmbeddedQueue) -> Claim {
    queue.claim("w", LEASE).unwrap().expect("a job is pending")
}

fn order(queue: &EmbeddedQueue) -> Vec<String> {
    queue.snapshot().unwrap().pending.into_iter().map(|item| item.prompt_id).collect()
}

fn history_ids(queue: &EmbeddedQueue, max_items: Option<usize>, offset: Option<usize>) -> Vec<String> {
    let history = queue.history(Page { max_items, offset }).unwrap();
    history.0.into_iter().map(|entry| entry.item.prompt_id).collect()
}

fn run(queue: &EmbeddedQueue, prompt_id: &str) {
    queue.submit(&job(prompt_id, Priority::Next)).unwrap();
    let claim = claim(queue);
    assert_eq!(claim.item.prompt_id, prompt_id);
    queue.finish(&claim.lease, &success()).unwrap();
}

#[test]
fn the_lowest_number_runs_first_and_equal_ones_by_arrival() {
    let (_folder, queue) = open(Limits::default());
    let submit = |id, priority| queue.submit(&job(id, priority)).unwrap().to_string();
    assert_eq!(submit("front of none", Priority::Front), "0");
    assert_eq!(submit("b", Priority::Next), "1");
    queue.count_refused().unwrap();
    assert_eq!(submit("c", Priority::Next), "3");
    assert_eq!(submit("d", Priority::Front), "-4");
    assert_eq!(submit("e", Priority::Number(-1000.0)), "-1000.0");
    assert_eq!(submit("f", Priority::Number(3.0)), "3.0");
    assert_eq!(submit("g", Priority::Next), "5");
    assert_eq!(order(&queue), ["e", "d", "front of none", "b", "c", "f", "g"]);
    assert!(matches!(queue.submit(&job("n", Priority::Number(f64::NAN))), Err(QueueError::Number { .. })));
}

#[test]
fn items_and_entries_have_comfyuis_shape_and_keep_their_text() {
    let (_folder, queue) = open(Limits::default());
    let text = r#"{"b": 18446744073709551615, "a": [1.0, 2e3],  "ü": "\u0000"}"#;
    let prompt = RawValue::from_string(text.into()).unwrap();
    queue.submit(&Submission { prompt, ..job("x", Priority::Number(5.0)) }).unwrap();
    let item = format!(r#"[5.0,"x",{text},{{"client_id":"c"}},["9"]]"#);
    let pending = serde_json::to_string(&queue.snapshot().unwrap()).unwrap();
    assert_eq!(pending, format!(r#"{{"queue_running":[],"queue_pending":[{item}]}}"#));
    let claim = claim(&queue);
    let running = serde_json::to_string(&queue.snapshot().unwrap()).unwrap();
    assert_eq!(running, format!(r#"{{"queue_running":[{item}],"queue_pending":[]}}"#));
    assert!(queue.history_entry("x").unwrap().is_none());
    queue.finish(&claim.lease, &success()).unwrap();
    let history = serde_json::to_string(&queue.history(Page::default()).unwrap()).unwrap();
    let status = r#"{"status_str":"success","completed":true,"messages":[["execution_start",{}]]}"#;
    let entry =
        format!(r#"{{"prompt":{item},"outputs":{{"9":{{"gifs":[]}}}},"status":{status},"meta":{{}}}}"#);
    assert_eq!(history, format!(r#"{{"x":{entry}}}"#));
    assert_eq!(serde_json::to_string(&queue.history_entry("x").unwrap()).unwrap(), entry);
    assert_eq!((queue.counts().unwrap().remaining(), queue.counts().unwrap().history), (0, 1));
}

#[test]
fn an_id_is_taken_until_its_job_ends() {
    let (_folder, queue) = open(Limits::default());
    let again = || queue.submit(&job("x", Priority::Next));
    assert_eq!(again().unwrap().to_string(), "0");
    assert!(matches!(again(), Err(QueueError::Duplicate { .. })));
    let first = claim(&queue);
    assert!(matches!(again(), Err(QueueError::Duplicate { .. })));
    queue.finish(&first.lease, &success()).unwrap();
    assert_eq!(again().unwrap().to_string(), "1");
    // What the earlier job left would be taken for this one's.
    assert!(queue.history_entry("x").unwrap().is_none());
    let second = claim(&queue);
    assert_ne!(first.lease.arrival, second.lease.arrival);
    assert!(matches!(queue.finish(&first.lease, &success()), Err(QueueError::LeaseLost { .. })));
}

#[test]
fn a_full_queue_says_so_and_counts_nothing() {
    let (_folder, queue) = open(Limits { pending: 2, ..Limits::default() });
    for id in ["a", "b"] {
        queue.submit(&job(id, Priority::Next)).unwrap();
    }
    let error = queue.submit(&job("c", Priority::Next)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the queue is full: 2 jobs are pending, expected fewer than 2; try again later"
    );
    claim(&queue);
    assert_eq!(queue.submit(&job("c", Priority::Next)).unwrap().to_string(), "2");
}

#[test]
fn pending_jobs_can_be_removed_and_running_ones_cannot() {
    let (_folder, queue) = open(Limits::default());
    for id in ["a", "b", "c", "d"] {
        queue.submit(&job(id, Priority::Next)).unwrap();
    }
    let running = claim(&queue);
    let ids = ["a", "c", "nobody"].map(String::from);
    assert_eq!(queue.delete_pending(&ids).unwrap(), 1);
    assert_eq!(order(&queue), ["b", "d"]);
    assert_eq!(queue.clear_pending().unwrap(), 2);
    assert_eq!(queue.counts().unwrap().running, 1);
    queue.finish(&running.lease, &success()).unwrap();
    assert_eq!(history_ids(&queue, None, None), ["a"]);
}

#[test]
fn only_the_running_job_is_cancelled() {
    let (_folder, queue) = open(Limits::default());
    assert!(queue.cancel(None).unwrap().is_empty());
    for id in ["a", "b"] {
        queue.submit(&job(id, Priority::Next)).unwrap();
    }
    let a = claim(&queue);
    assert!(queue.cancel(Some("b")).unwrap().is_empty());
    assert!(!queue.is_cancelled(&a.lease).unwrap());
    assert_eq!(queue.cancel(Some("a")).unwrap(), ["a"]);
    assert!(queue.is_cancelled(&a.lease).unwrap());
    queue.finish(&a.lease, &Outcome { verdict: Verdict::Interrupted, ..success() }).unwrap();
    let entry = serde_json::to_value(queue.history_entry("a").unwrap()).unwrap();
    assert_eq!(
        (&entry["status"]["status_str"], &entry["status"]["completed"]),
        (&json!("error"), &json!(false))
    );
    let b = claim(&queue);
    assert!(!b.cancelled && !queue.is_cancelled(&b.lease).unwrap());
    assert_eq!(queue.cancel(None).unwrap(), ["b"]);
}

#[test]
fn a_lost_job_is_claimed_again_before_all_others() {
    let (folder, queue) = open(Limits::default());
    queue.submit(&job("a", Priority::Next)).unwrap();
    let first = claim(&queue);
    assert_eq!((first.attempts, first.state.is_none()), (1, true));
    queue.save_state(&first.lease, &raw(json!({"step": 3}))).unwrap();
    queue.cancel(None).unwrap();
    queue.submit(&job("b", Priority::Front)).unwrap();
    assert!(matches!(EmbeddedQueue::open(folder.path(), Limits::default()), Err(QueueError::InUse { .. })));
    drop(queue);

    // Whoever makes room for the database has the folder alone.
    let mut taken = None;
    let make_room = || taken = EmbeddedQueue::open(folder.path(), Limits::default()).err();
    let queue = EmbeddedQueue::open_after(folder.path(), Limits::default(), make_room).unwrap();
    assert!(matches!(taken, Some(QueueError::InUse { .. })), "{taken:?}");
    assert_eq!(order(&queue), ["a", "b"]);
    assert!(matches!(queue.finish(&first.lease, &success()), Err(QueueError::LeaseLost { .. })));
    let again = claim(&queue);
    assert_eq!((again.attempts, again.cancelled), (1, true));
    assert_eq!(again.state.as_ref().unwrap().get(), r#"{"step":3}"#);
    drop(queue);

    let queue = EmbeddedQueue::open(folder.path(), Limits::default()).unwrap();
    let third = claim(&queue);
    assert_eq!(third.attempts, 2);
    queue.release(&third.lease).unwrap();
    let fourth = claim(&queue);
    assert_eq!((fourth.attempts, fourth.item.prompt_id.as_str()), (1, "a"));
    assert!(matches!(queue.renew(&third.lease, LEASE), Err(QueueError::LeaseLost { .. })));
    assert_eq!(claim(&queue).item.prompt_id, "b");
    assert!(queue.claim("w", LEASE).unwrap().is_none());
}

#[test]
fn a_lease_that_ran_out_passes_on() {
    let (_folder, queue) = open(Limits::default());
    queue.submit(&job("a", Priority::Next)).unwrap();
    let slow = queue.claim("slow", Duration::ZERO).unwrap().unwrap();
    thread::sleep(Duration::from_millis(5));
    let quick = queue.claim("quick", LEASE).unwrap().expect("the lease is over");
    assert!(matches!(queue.save_state(&slow.lease, &raw(json!(1))), Err(QueueError::LeaseLost { .. })));
    queue.finish(&quick.lease, &success()).unwrap();
}

#[test]
fn the_history_is_paged_bounded_and_can_be_deleted() {
    let (_folder, queue) = open(Limits { history: 5, ..Limits::default() });
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        run(&queue, id);
    }
    assert_eq!(history_ids(&queue, None, None), ["c", "d", "e", "f", "g"]);
    assert_eq!(history_ids(&queue, Some(2), None), ["f", "g"]);
    assert_eq!(history_ids(&queue, Some(2), Some(1)), ["d", "e"]);
    assert_eq!(history_ids(&queue, None, Some(3)), ["f", "g"]);
    assert!(history_ids(&queue, Some(0), None).is_empty());
    assert!(history_ids(&queue, Some(usize::MAX), Some(usize::MAX)).is_empty());
    assert_eq!(queue.delete_history(&["d", "x"].map(String::from)).unwrap(), 1);
    run(&queue, "h");
    assert_eq!(history_ids(&queue, None, None), ["c", "e", "f", "g", "h"]);
    assert_eq!(queue.clear_history().unwrap(), 5);
}

#[test]
fn whoever_waits_is_woken_by_a_change() {
    let (_folder, queue) = open(Limits::default());
    let queue = Arc::new(queue);
    let seen = queue.wait_for_change(u64::MAX, Duration::ZERO);
    let begun = Instant::now();
    assert_eq!(queue.wait_for_change(seen, Duration::from_millis(20)), seen);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    let waiting = {
        let queue = queue.clone();
        thread::spawn(move || queue.wait_for_change(seen, Duration::from_secs(60)))
    };
    queue.submit(&job("a", Priority::Next)).unwrap();
    assert!(waiting.join().unwrap() > seen);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn many_threads_lose_nothing_and_nobody_sees_a_job_in_neither_place() {
    let (_folder, queue) = open(Limits::default());
    let total = 40;
    thread::scope(|scope| {
        for worker in 0..2 {
            let queue = &queue;
            scope.spawn(move || {
                for n in 0..total / 2 {
                    queue.submit(&job(&format!("{worker}-{n}"), Priority::Next)).unwrap();
                }
            });
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(60);
                while queue.counts().unwrap().history < total && Instant::now() < deadline {
                    if let Some(claim) = queue.claim("w", LEASE).unwrap() {
                        let id = &claim.item.prompt_id;
                        queue.finish(&claim.lease, &success()).unwrap();
                        assert!(queue.history_entry(id).unwrap().is_some());
                    }
                }
            });
        }
        scope.spawn(|| {
            queue.submit(&job("watched", Priority::Number(1e9))).unwrap();
            while queue.counts().unwrap().history <= total / 2 {
                let snapshot = queue.snapshot().unwrap();
                let listed =
                    snapshot.running.iter().chain(&snapshot.pending).any(|i| i.prompt_id == "watched");
                assert!(listed || queue.history_entry("watched").unwrap().is_some());
            }
        });
    });
    let mut ids = history_ids(&queue, None, None);
    ids.sort();
    ids.dedup();
    assert!(ids.len() >= total, "{} of {total}", ids.len());
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let (folder, queue) = open(Limits::default());
    drop(queue);
    let path = folder.path().join("queue.sqlite3");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = EmbeddedQueue::open(folder.path(), Limits::default()).err().expect("refused");
    assert!(matches!(error, QueueError::Version { found: 99, .. }), "{error}");
}
