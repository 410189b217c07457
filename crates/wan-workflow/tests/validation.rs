//! Graphs that cannot run, and what clients are told.

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Names, check, guide, native, with};
use wan_workflow::{convert, object_info, signatures, validate};

/// The first error of a node.
fn error_of(graph: &Value, node: &str) -> Value {
    let answer = check(graph).expect_err("an invalid graph").to_json();
    answer["node_errors"][node]["errors"][0].clone()
}

#[test]
fn every_kind_of_error_is_told_as_comfyui_tells_it() {
    let mut without_steps = guide();
    without_steps["52"]["inputs"].as_object_mut().unwrap().remove("steps");
    let cases = [
        (without_steps, "52", "required_input_missing", "Required input is missing", "steps"),
        (
            with(guide(), "52", "steps", json!(0)),
            "52",
            "value_smaller_than_min",
            "Value 0 smaller than min of 1",
            "steps",
        ),
        (
            with(guide(), "52", "cfg", json!(31)),
            "52",
            "value_bigger_than_max",
            "Value 31.0 bigger than max of 30.0",
            "cfg",
        ),
        (
            with(guide(), "52", "scheduler", json!("foo")),
            "52",
            "value_not_in_list",
            "Value not in list",
            "scheduler: 'foo' not in ['unipc', 'unipc/beta', 'dpm++', 'dpm++/beta', 'dpm++_sde', 'dpm++_sde/beta', \
             'euler', 'euler/beta', 'deis', 'lcm', 'lcm/beta', 'res_multistep', 'flowmatch_distill']",
        ),
        (
            with(guide(), "52", "steps", json!("abc")),
            "52",
            "invalid_input_type",
            "Failed to convert an input value to a INT value",
            "steps, abc, invalid literal for int() with base 10: 'abc'",
        ),
        (
            with(guide(), "52", "model", json!(["49", 0])),
            "52",
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            "model, received_type(WANVIDEOTEXTEMBEDS) mismatch input_type(WANVIDEOMODEL)",
        ),
        (
            with(guide(), "42", "image", json!("nope.png")),
            "42",
            "custom_validation_failed",
            "Custom validation failed for node",
            "image - Invalid image file: nope.png",
        ),
        (
            with(guide(), "52", "samples", json!(["52", 0])),
            "52",
            "dependency_cycle",
            "Dependency cycle detected",
            "node 52 depends on its own output",
        ),
    ];
    for (graph, node, kind, message, details) in cases {
        let error = error_of(&graph, node);
        assert_eq!(
            (&error["type"], &error["message"], &error["details"]),
            (&json!(kind), &json!(message), &json!(details))
        );
    }
    let bad = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
    for link in [
        json!(["48"]),
        json!(["99", 0]),
        json!(["48", 3]),
        json!([48, 0]),
        json!(["48", -1]),
        json!(["48", false]),
        json!([]),
    ] {
        let error = error_of(&with(guide(), "52", "model", link.clone()), "52");
        assert_eq!((&error["type"], &error["message"]), (&json!("bad_linked_input"), &json!(bad)), "{link}");
        assert_eq!(error["extra_info"]["received_value"], link);
    }
    for image in ["../x.png", "/etc/passwd", "a\\girl.png", ""] {
        assert_eq!(
            error_of(&with(guide(), "42", "image", json!(image)), "42")["type"],
            "custom_validation_failed"
        );
    }
    for constant in [json!("xyz"), json!(null)] {
        assert_eq!(error_of(&with(guide(), "52", "model", constant), "52")["type"], "invalid_input_type");
    }
}

#[test]
fn all_errors_of_all_nodes_come_at_once() {
    let mut graph = with(with(guide(), "43", "model_name", json!("no")), "52", "steps", json!(0));
    graph["52"]["inputs"].as_object_mut().unwrap().remove("shift");
    let answer = check(&graph).unwrap_err().to_json();
    assert_eq!(answer["error"]["type"], "prompt_outputs_failed_validation");
    let details = answer["error"]["details"].as_str().unwrap();
    assert!(details.contains("WanVideoSampler 52: Required input is missing: shift"), "{details}");
    assert_eq!(answer["error"]["extra_info"], json!({}));
    let nodes = answer["node_errors"].as_object().unwrap();
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["43", "52"]);
    assert_eq!(nodes["43"]["dependent_outputs"], json!(["54"]));
    assert_eq!(nodes["43"]["class_type"], "WanVideoVAELoader");
    let error = &nodes["43"]["errors"][0];
    assert_eq!(error["details"], "model_name: 'no' not in ['wan2.1/Wan2_1_VAE_bf16.safetensors']");
    assert_eq!(error["extra_info"]["input_config"][0], json!(["wan2.1/Wan2_1_VAE_bf16.safetensors"]));
    let kinds: Vec<_> = nodes["52"]["errors"].as_array().unwrap().iter().map(|e| &e["type"]).collect();
    assert_eq!(kinds, ["value_smaller_than_min", "required_input_missing"]);
}

#[test]
fn graphs_that_are_none_are_told_apart() {
    let mut no_output = guide();
    no_output.as_object_mut().unwrap().remove("54");
    let mut unknown = guide();
    unknown["99"] = json!({"class_type": "Nope", "inputs": {}});
    for (graph, kind) in [
        (json!(null), "no_prompt"),
        (json!({}), "prompt_no_outputs"),
        (json!([]), "prompt_no_outputs"),
        (no_output, "prompt_no_outputs"),
        (unknown.clone(), "missing_node_type"),
        (json!({"1": {"inputs": {}}}), "missing_node_type"),
        (json!("x"), "invalid_prompt"),
        (json!({"1": 5}), "invalid_prompt"),
        (json!({"nodes": [], "links": []}), "invalid_prompt"),
    ] {
        let answer = check(&graph).unwrap_err().to_json();
        assert_eq!(answer["error"]["type"], kind, "{graph}");
        assert_eq!(answer["node_errors"], json!({}));
    }
    assert_eq!(check(&unknown).unwrap_err().details, "Node ID '#99'");
    let targets = ["1".to_owned()];
    assert_eq!(validate(&guide(), Some(&targets), &Names).unwrap_err().kind, "prompt_no_outputs");
}

#[test]
fn a_wrong_output_does_not_stop_a_right_one() {
    let mut graph = guide();
    graph["60"] = graph["54"].clone();
    graph["60"]["inputs"]["frame_rate"] = json!(0);
    let valid = check(&graph).unwrap();
    assert_eq!(valid.outputs, ["54"]);
    let report = valid.node_errors.get("60").unwrap();
    assert_eq!(
        (report.errors[0].kind, report.dependent_outputs.as_slice()),
        ("value_smaller_than_min", &["60".into()][..])
    );
}

#[test]
fn unknown_inputs_are_left_alone_and_what_cannot_be_done_is_refused() {
    let graph = with(with(guide(), "52", "extra", json!(["nonexist", 0])), "48", "more", json!(3));
    assert_eq!(check(&graph).unwrap().graph.as_json()["52"]["inputs"]["extra"], json!(["nonexist", 0]));
    let graph = with(guide(), "48", "compile_args", json!(["47", 0]));
    assert!(check(&graph).is_ok());
    for (graph, node, input) in [
        (with(guide(), "54", "filename_prefix", json!("../x")), "54", "filename_prefix"),
        (with(guide(), "52", "cfg", json!(0)), "52", "cfg"),
        (with(native(), "12", "denoise", json!(0.5)), "12", "denoise"),
        (with(native(), "9", "batch_size", json!(2)), "9", "batch_size"),
        (with(guide(), "52", "steps", json!(["49", 0])), "52", "steps"),
        (with(guide(), "54", "pix_fmt", json!("rgb")), "54", "pix_fmt"),
    ] {
        assert_eq!(error_of(&graph, node)["extra_info"]["input_name"], input);
    }
}

#[test]
fn object_info_has_the_shape_that_front_ends_read() {
    let info = object_info(&Names);
    let vae = &info["WanVideoVAELoader"];
    assert_eq!(vae["input"]["required"]["model_name"], json!([["wan2.1/Wan2_1_VAE_bf16.safetensors"]]));
    assert_eq!(vae["input"]["optional"]["precision"], json!([["fp16", "fp32", "bf16"], {"default": "bf16"}]));
    assert_eq!(vae["input_order"]["required"], json!(["model_name"]));
    assert_eq!((&vae["output"], &vae["output_name"]), (&json!(["WANVAE"]), &json!(["vae"])));
    assert_eq!(vae["output_node"], false);
    let sampler = &info["WanVideoSampler"]["input"]["required"];
    assert_eq!(sampler["seed"][1]["max"], json!(u64::MAX));
    assert_eq!(info["LoadImage"]["input"]["required"]["image"][0], json!(["girl.png", "end.png"]));
    assert_eq!(info["LoadImage"]["input"]["required"]["image"][1]["image_upload"], true);
    let combine = &info["VHS_VideoCombine"];
    assert!(combine["input"]["optional"].get("crf").is_none() && combine["output_node"] == true);
    assert_eq!(combine["input"]["hidden"]["unique_id"], "UNIQUE_ID");
    for (name, class) in &info {
        assert_eq!(
            class["output"].as_array().unwrap().len(),
            class["output_is_list"].as_array().unwrap().len(),
            "{name}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        (prop_oneof![Just("42"), Just("48"), Just("52"), Just("54"), Just("9")], -1i64..4)
            .prop_map(|(id, slot)| json!([id, slot])),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_graph_is_too_strange(values in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any_json()), 1..6), wild in any_json()) {
        let _ = check(&wild);
        let _ = convert(&wild);
        let _ = convert(&json!({"nodes": [{"id": 1, "type": "KSampler", "widgets_values": wild.clone(), "inputs": wild}], "links": [wild]}));
        for mut graph in [guide(), native()] {
            for (node, input, value) in &values {
                let nodes = graph.as_object_mut().unwrap();
                let id = nodes.keys().nth(node.index(nodes.len())).unwrap().clone();
                let inputs = nodes[&id]["inputs"].as_object_mut().unwrap();
                let name = inputs.keys().nth(input.index(inputs.len())).unwrap().clone();
                inputs[&name] = value.clone();
            }
            if let Ok(valid) = check(&graph) {
                let again = check(&Value::Object(valid.graph.as_json().clone())).unwrap();
                prop_assert_eq!(&again.job, &valid.job);
                signatures(&valid.graph, &valid.outputs, &|_| None);
            }
        }
    }
}
