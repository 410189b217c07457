//! `POST /prompt`: what is taken and what is refused, in ComfyUI's words.

use serde_json::{Value, json};

use super::server::{Response, Server, guide};

fn submit(server: &Server, graph: &Value) -> Response {
    server.post("/prompt", &json!({"prompt": graph}))
}

/// The guide's graph with one input of node 52 changed; null removes it.
fn sampler(input: &str, value: Value) -> Value {
    let mut graph = guide();
    let inputs = graph["52"]["inputs"].as_object_mut().expect("inputs");
    inputs.insert(input.into(), value);
    inputs.retain(|_, value| !value.is_null());
    graph
}

#[test]
fn content_types_do_not_matter() {
    let server = Server::start();
    let body = json!({"prompt": guide(), "client_id": "c"}).to_string();
    for headers in [&[("Content-Type", "text/plain;charset=UTF-8")][..], &[]] {
        for path in ["/prompt", "//prompt", "/api/prompt", "/api//prompt"] {
            let taken = server.send("POST", path, headers, body.as_bytes());
            assert_eq!(taken.status, 200, "{path}: {}", taken.text());
            let answer = taken.json();
            assert!(
                answer["number"].is_i64()
                    && answer["node_errors"] == json!({})
                    && answer["prompt_id"].is_string()
            );
        }
    }
    server.post("/queue", &json!({"clear": true}));
}

#[test]
fn malformed_bodies_are_named() {
    let server = Server::start();
    for (body, kind) in [
        ("{bad", "invalid_json"),
        ("", "invalid_json"),
        ("null", "invalid_json"),
        ("[]", "no_prompt"),
        ("{}", "no_prompt"),
        (r#"{"prompt": null}"#, "no_prompt"),
        (r#"{"prompt": "x"}"#, "invalid_prompt"),
        (r#"{"prompt": {"1": 5}}"#, "invalid_prompt"),
        (r#"{"prompt": {}}"#, "prompt_no_outputs"),
        (r#"{"prompt": {"nodes": [], "links": []}}"#, "invalid_prompt"),
        (r#"{"prompt": {"1": {"inputs": {}}}}"#, "missing_node_type"),
    ] {
        let refused = server.send("POST", "/prompt", &[], body.as_bytes());
        assert_eq!((refused.status, refused.error_type().as_str()), (400, kind), "{body}");
    }
    let mut graph = guide();
    graph.as_object_mut().expect("an object").remove("54");
    assert_eq!(submit(&server, &graph).error_type(), "prompt_no_outputs");
    let mut graph = guide();
    graph["99"] = json!({"class_type": "Nope", "inputs": {}});
    let refused = submit(&server, &graph);
    assert_eq!(refused.error_type(), "missing_node_type");
    assert_eq!(refused.json()["error"]["details"], "Node ID '#99'");
}

#[test]
fn errors_of_nodes_are_comfyuis() {
    let server = Server::start();
    for (input, value, kind) in [
        ("steps", Value::Null, "required_input_missing"),
        ("steps", json!(0), "value_smaller_than_min"),
        ("cfg", json!(31), "value_bigger_than_max"),
        ("scheduler", json!("foo"), "value_not_in_list"),
        ("steps", json!("abc"), "invalid_input_type"),
        ("model", json!(["49", 0]), "return_type_mismatch"),
        ("model", json!(["48"]), "bad_linked_input"),
        ("model", json!(["99", 0]), "bad_linked_input"),
        ("model", json!(["48", 3]), "bad_linked_input"),
        ("model", json!("xyz"), "invalid_input_type"),
    ] {
        let refused = submit(&server, &sampler(input, value.clone()));
        assert_eq!(refused.error_type(), "prompt_outputs_failed_validation", "{input} {value}");
        let body = refused.json();
        let node = &body["node_errors"]["52"];
        assert_eq!(node["errors"][0]["type"], kind, "{input} {value}: {body}");
        assert_eq!(
            (&node["dependent_outputs"], &node["class_type"]),
            (&json!(["54"]), &json!("WanVideoSampler"))
        );
        assert!(body["error"]["details"].as_str().expect("text").contains(input), "{body}");
    }
    for name in ["nope.png", "../x.png", "/etc/passwd"] {
        let mut graph = guide();
        graph["42"]["inputs"]["image"] = json!(name);
        let body = submit(&server, &graph).json();
        assert_eq!(
            body["node_errors"]["42"]["errors"][0]["type"], "custom_validation_failed",
            "{name}: {body}"
        );
    }
}

#[test]
fn graphs_of_other_versions_are_taken() {
    let server = Server::start();
    let mut graph = guide();
    graph["52"]["inputs"]["unknown"] = json!(["nonexist", 0]);
    graph["54"]["inputs"]["another"] = json!({"a": [1]});
    graph["48"]["inputs"]["compile_args"] = json!(["47", 0]);
    graph["54"]["inputs"]["frame_rate"] = json!("16");
    let id = server.submit(&graph);
    assert_eq!(server.wait(&id)["status"]["completed"], true);
    assert_eq!(server.wait(&server.submit(&guide()))["status"]["completed"], true);
}

#[test]
fn an_output_that_is_wrong_does_not_stop_the_others() {
    let server = Server::start();
    let mut graph = guide();
    graph["55"] = graph["54"].clone();
    graph["55"]["inputs"]["frame_rate"] = json!(0);
    let taken = submit(&server, &graph);
    assert_eq!(taken.status, 200, "{}", taken.text());
    let taken = taken.json();
    assert!(taken["node_errors"]["55"].is_object(), "{taken}");
    let entry = server.wait(taken["prompt_id"].as_str().expect("an id"));
    assert!(entry["outputs"]["54"].is_object() && entry["outputs"]["55"].is_null(), "{entry}");
}

#[test]
fn ids_of_the_clients_are_kept_and_unique() {
    let server = Server::start();
    let running = server.submit(&super::server::long());
    server.wait_running(&running);
    let id = "3f0c1f9e-0000-4000-8000-000000000001";
    assert_eq!(server.submit_with(&guide(), json!({"prompt_id": id})), id);
    for taken in [id, &running] {
        let again = server.post("/prompt", &json!({"prompt": guide(), "prompt_id": taken}));
        assert_eq!((again.status, again.error_type().as_str()), (400, "invalid_prompt_id"));
    }
    for bad in [json!(""), json!("a/b"), json!(5), json!("x".repeat(129))] {
        let refused = server.post("/prompt", &json!({"prompt": guide(), "prompt_id": bad}));
        assert_eq!((refused.status, refused.error_type().as_str()), (400, "invalid_prompt_id"));
    }
}

#[test]
fn a_full_queue_says_so() {
    let server = Server::with(&["--token", super::server::TOKEN, "--max-queue", "2"]);
    let running = server.submit(&super::server::long());
    server.wait_running(&running);
    server.submit(&guide());
    server.submit(&guide());
    let refused = submit(&server, &guide());
    assert_eq!((refused.status, refused.error_type().as_str()), (429, "queue_full"));
    assert!(refused.header("retry-after").is_some() && refused.text().contains("2 jobs are pending"));
}

#[test]
fn saved_workflows_are_converted() {
    let server = Server::start();
    assert_eq!(server.get("/userdata?dir=workflows").json(), json!(["wanx-21.json"]));
    let saved = server.get("/userdata/workflows%2Fwanx-21.json").json();
    let converted = server.post("/wan-run/convert", &saved).json();
    let prompt = &converted["prompt"];
    assert_eq!(prompt["52"]["class_type"], "WanVideoSampler");
    assert_eq!(
        server.post("/wan-run/convert", prompt).json()["prompt"],
        *prompt,
        "API format passes through"
    );
    let refused = server.post("/prompt", &json!({"prompt": saved}));
    assert!(refused.text().contains("UI workflow"), "{}", refused.text());
    assert_eq!(server.post("/wan-run/convert", &json!([1])).error_type(), "invalid_workflow");
}
