//! Order, cancelling, and the passage from the queue to the history.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Server, guide, ids, long};

#[test]
fn an_idle_server_has_two_empty_lists() {
    let server = Server::start();
    for path in ["/queue", "/api/queue"] {
        let response = server.send("GET", path, &[("Content-Type", "application/json")], b"");
        assert_eq!(response.json(), json!({"queue_running": [], "queue_pending": []}));
        assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
    }
    assert_eq!(server.get("/prompt").json(), json!({"exec_info": {"queue_remaining": 0}}));
}

#[test]
fn jobs_run_by_number_and_can_be_removed() {
    let server = Server::start();
    let a = server.submit_with(&long(), json!({"client_id": "me"}));
    server.wait_running(&a);
    let queue = server.get("/queue").json();
    let item = queue["queue_running"][0].as_array().expect("an item").clone();
    assert_eq!(
        (item.len(), &item[1], &item[3]["client_id"], &item[4]),
        (5, &json!(a), &json!("me"), &json!(["54"]))
    );
    assert_eq!(item[2]["52"]["inputs"]["cfg"].to_string(), "6.0", "constants are coerced");
    let b = server.submit(&guide());
    let c = server.submit(&guide());
    let d = server.submit_with(&guide(), json!({"front": true}));
    let e = server.submit_with(&guide(), json!({"number": -1000}));
    let queue = server.get("/queue").json();
    assert_eq!(ids(&queue["queue_pending"]), [&e, &d, &b, &c].map(String::as_str));
    assert!(
        queue["queue_pending"][0][0].is_f64() && queue["queue_pending"][1][0].as_i64() < Some(0),
        "{queue}"
    );
    let removed = server.post("/queue", &json!({"delete": [b, a, "unknown", 5]}));
    assert_eq!((removed.status, removed.body.len(), removed.header("content-type")), (200, 0, None));
    assert_eq!(ids(&server.get("/queue").json()["queue_pending"]), [&e, &d, &c].map(String::as_str));
    assert_eq!(server.post("/queue", &json!({"clear": true})).status, 200);
    let queue = server.get("/queue").json();
    assert_eq!((ids(&queue["queue_running"]), queue["queue_pending"].clone()), (vec![a], json!([])));
    assert_eq!(server.get(&format!("/history/{b}")).json(), json!({}));
}

/// A refused prompt counts, unless it names a number; a front job goes before all that came so far.
#[test]
fn later_jobs_keep_their_order_after_refusals() {
    let server = Server::start();
    let a = server.submit(&long());
    server.wait_running(&a);
    let refuse = |more: Value| {
        let mut body = json!({"prompt": {}});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        assert_eq!(server.post("/prompt", &body).status, 400);
    };
    refuse(json!({}));
    let b = server.submit(&guide());
    refuse(json!({"number": 7}));
    let c = server.submit_with(&guide(), json!({"front": true}));
    refuse(json!({"front": true}));
    let d = server.submit(&guide());
    let e = server.submit_with(&guide(), json!({"number": "4.5"}));
    let pending = server.get("/queue").json()["queue_pending"].clone();
    let numbers: Vec<&Value> = pending.as_array().expect("items").iter().map(|item| &item[0]).collect();
    assert_eq!(ids(&pending), [&c, &b, &e, &d].map(String::as_str));
    assert_eq!(json!(numbers), json!([-3, 2, 4.5, 5]));
}

#[test]
fn interrupting_ends_the_running_job_and_no_other() {
    let server = Server::start();
    let id = server.submit(&long());
    let next = server.submit(&guide());
    server.wait_running(&id);
    assert_eq!(server.post("/interrupt", &json!({"prompt_id": "other"})).status, 200);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get(&format!("/history/{id}")).json(), json!({}));
    let answer = server.send("POST", "/interrupt", &[], b"");
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (200, 0, None));
    let entry = server.wait(&id);
    assert_eq!(entry["status"]["status_str"], "error");
    assert_eq!((&entry["status"]["completed"], &entry["outputs"]), (&json!(false), &json!({})));
    let messages = entry["status"]["messages"].as_array().expect("messages");
    assert_eq!(messages.last().expect("one")[0], "execution_interrupted");
    assert_eq!(server.wait(&next)["status"]["completed"], true);
}

#[test]
fn a_job_is_always_in_the_queue_or_in_the_history() {
    let server = Server::start();
    let mut graph = guide();
    graph["52"]["inputs"]["steps"] = json!(100);
    let id = server.submit(&graph);
    let (mut looks, mut done) = (0, false);
    while !done {
        let queue = server.get("/queue").json();
        let (running, pending) = (ids(&queue["queue_running"]), ids(&queue["queue_pending"]));
        done = server.get(&format!("/history/{id}")).json().get(&id).is_some();
        let (runs, waits) = (running.contains(&id), pending.contains(&id));
        assert!(runs || waits || done, "in neither after {looks} looks");
        assert!(!(runs && waits), "pending and running at once");
        looks += 1;
        thread::sleep(Duration::from_millis(5));
    }
    assert!(looks > 1);
}

#[test]
fn parallel_submissions_get_numbers_and_files_of_their_own() {
    let server = Server::start();
    let answers: Vec<Value> = thread::scope(|scope| {
        let post = |seed: u64| {
            let mut graph = guide();
            graph["52"]["inputs"]["seed"] = json!(seed);
            server.post("/prompt", &json!({"prompt": graph})).json()
        };
        let threads: Vec<_> = (0..20).map(|seed| scope.spawn(move || post(seed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let numbers: HashSet<i64> = answers.iter().map(|a| a["number"].as_i64().expect("a number")).collect();
    assert_eq!(numbers, (0..20).collect());
    let mut files = HashSet::new();
    for answer in &answers {
        let entry = server.wait(answer["prompt_id"].as_str().expect("an id"));
        files.insert(entry["outputs"]["54"]["gifs"][0]["filename"].as_str().expect("a name").to_owned());
        assert!(server.get("/queue").json()["queue_running"].as_array().expect("a list").len() <= 1);
    }
    assert_eq!(files.len(), 20);
}

#[test]
fn jobs_are_one_list_of_queue_and_history() {
    let server = Server::start();
    let mine = || json!({"extra_data": {"extra_pnginfo": {"workflow": {"id": "mine"}}}});
    let done = server.submit_with(&guide(), mine());
    server.wait(&done);
    let running = server.submit(&long());
    server.wait_running(&running);
    let waiting = server.submit_with(&guide(), mine());
    let jobs = |query: &str| {
        let answer = server.get(&format!("/api/jobs{query}")).json();
        let ids = answer["jobs"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|job| job["id"].as_str().expect("an id").to_owned());
        (
            ids.collect::<Vec<_>>(),
            answer["pagination"]["total"].clone(),
            answer["pagination"]["has_more"].clone(),
        )
    };
    let all = [&waiting, &running, &done].map(String::clone);
    assert_eq!(jobs(""), (all.to_vec(), json!(3), json!(false)));
    assert_eq!(jobs("?status=in_progress,pending&limit=200&offset=0").0, all[..2]);
    assert_eq!(jobs("?limit=1&offset=1"), (vec![running.clone()], json!(3), json!(true)));
    assert_eq!(jobs("?status=completed,failed,cancelled&offset=1").0, [""; 0]);
    assert_eq!(jobs("?status=failed").0, [""; 0]);
    assert_eq!(jobs("?status=").0, all);
    assert_eq!(jobs("?status=%20Pending,&workflow_id=").0, all[..1]);
    assert_eq!(jobs("?workflow_id=mine"), (vec![waiting.clone(), done.clone()], json!(2), json!(false)));
    assert_eq!(jobs("?workflow_id=mine&status=completed").0, all[2..]);
    assert_eq!(jobs("?workflow_id=nope"), (vec![], json!(0), json!(false)));
    assert_eq!(server.get("/jobs?limit=x").status, 400);
    let unknown = server.get("/jobs?status=completed,done");
    assert_eq!(unknown.status, 400);
    assert!(
        unknown.text().contains("found `done`, expected some of pending, in_progress"),
        "{}",
        unknown.text()
    );

    let one = server.get(&format!("/jobs/{done}")).json();
    assert_eq!((&one["status"], &one["outputs_count"]), (&json!("completed"), &json!(1)));
    assert_eq!(
        (&one["preview_output"]["nodeId"], &one["preview_output"]["mediaType"]),
        (&json!("54"), &json!("gifs"))
    );
    assert!(one["execution_end_time"].as_i64() >= one["execution_start_time"].as_i64(), "{one}");
    assert!(one["outputs"]["54"].is_object() && one["workflow"]["prompt"]["52"].is_object(), "{one}");
    assert_eq!(server.get("/jobs/unknown").error_type(), "unknown_job");

    assert_eq!(server.post(&format!("/jobs/{waiting}/cancel"), &json!({})).status, 200);
    assert_eq!(server.get(&format!("/jobs/{waiting}")).status, 404);
    assert_eq!(server.post("/jobs/cancel", &json!({"job_ids": [running, "unknown"]})).status, 200);
    server.wait(&running);
    assert_eq!(server.get(&format!("/jobs/{running}")).json()["status"], "cancelled");
    assert_eq!(server.post(&format!("/jobs/{running}/cancel"), &json!({})).status, 404);
}

#[test]
fn a_stop_stops_however_it_is_worded() {
    let server = Server::start();
    for body in [&b"{\"prompt_id\": \"\"}"[..], b"{\"prompt_id\": null}", b"{\"prompt_id\": ", b"[]"] {
        let id = server.submit(&long());
        server.wait_running(&id);
        assert_eq!(server.post("/interrupt", &json!({"prompt_id": "another"})).status, 200);
        assert_eq!(server.send("POST", "/interrupt", &[], body).status, 200);
        let entry = server.wait(&id);
        assert_eq!(entry["status"]["messages"][2][0], "execution_interrupted", "{entry}");
    }
    let running = server.submit(&long());
    server.wait_running(&running);
    server.submit(&guide());
    server.post("/queue", &json!({"clear": 0}));
    assert_eq!(server.get("/prompt").json()["exec_info"]["queue_remaining"], 2);
    server.post("/queue", &json!({"clear": 1}));
    assert_eq!(server.get("/prompt").json()["exec_info"]["queue_remaining"], 1);
}
