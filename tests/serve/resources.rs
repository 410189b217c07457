//! Everything that clients ask for beside the queue.

use serde_json::json;

use super::server::{Server, TOKEN};

#[test]
fn every_resource_answers_with_and_without_the_prefix() {
    let server = Server::start();
    for path in [
        "/prompt",
        "/queue",
        "/history",
        "/object_info",
        "/system_stats",
        "/features",
        "/embeddings",
        "/extensions",
        "/models",
        "/models/vae",
        "/experiment/models",
        "/experiment/models/vae",
        "/users",
        "/settings",
        "/i18n",
        "/settings/Comfy.x",
        "/userdata?dir=workflows",
        "/v2/userdata?path=workflows",
        "/workflow_templates",
        "/global_subgraphs",
        "/jobs",
    ] {
        for path in [path.to_owned(), format!("/api{path}")] {
            let answer = server.get(&path);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{path}");
            answer.json();
            let head = server.send("HEAD", &path, &[], b"");
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        }
    }
    assert_eq!(server.get("/internal/logs/raw").json()["entries"], json!([]));
    assert_eq!(server.get("/api/internal/logs").status, 404);
}

#[test]
fn paths_and_methods_that_do_not_exist_say_so() {
    let server = Server::start();
    for path in [
        "/queue/",
        "/manager/queue",
        "/crystools/x",
        "/models/unet",
        "/userdata?dir=nothing",
        "/../etc/passwd",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.post("/nothing", &json!({})).status, 404);
    let wrong = server.send("DELETE", "/queue", &[], b"");
    assert_eq!(wrong.status, 405);
    assert!(wrong.header("allow").expect("methods").contains("POST") && !wrong.text().is_empty());
    assert_eq!(server.post("/upload/mask", &json!({})).error_type(), "not_implemented");
    assert_eq!(server.get("/object_info/Nope").json(), json!({}));
}

#[test]
fn the_machine_and_the_nodes_are_described() {
    let server = Server::start();
    let stats = server.get("/system_stats").json();
    for key in [
        "os",
        "ram_total",
        "ram_free",
        "comfyui_version",
        "required_frontend_version",
        "installed_templates_version",
        "required_templates_version",
        "python_version",
        "pytorch_version",
        "embedded_python",
        "argv",
    ] {
        assert!(!stats["system"][key].is_null(), "{key}");
    }
    for key in ["name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"] {
        assert!(!stats["devices"][0][key].is_null(), "{key}");
    }
    let info = server.get("/object_info/WanVideoSampler").json();
    let node = &info["WanVideoSampler"];
    assert_eq!(node["input"]["required"]["steps"][0], "INT");
    assert_eq!(node["output"], json!(["LATENT"]));
    let models = server.get("/models/diffusion_models").json();
    assert!(models.as_array().expect("names").contains(&json!("Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors")));
    let session = server.get("/wan-run/session").json();
    assert_eq!(
        (&session["model"], &session["device"], &session["token"]),
        (&json!("tiny"), &json!("cpu"), &json!(TOKEN))
    );
    let sample = &session["sample"];
    assert_eq!((&sample["positive"], &sample["width"]), (&json!("the red circle moves right"), &json!(128)));
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("wan_run_queue_pending 0") && metrics.contains("wan_run_http_responses_total"),
        "{metrics}"
    );
    for path in ["/free", "/interrupt"] {
        let freed = server.send("POST", path, &[], b"");
        assert_eq!((freed.status, freed.body.len(), freed.header("content-type")), (200, 0, None));
    }
}

#[test]
fn settings_are_kept() {
    let mut server = Server::start();
    assert_eq!(server.get("/settings").json(), json!({}));
    assert_eq!(server.post("/settings", &json!({"a": 1, "b": {"c": 2}})).status, 200);
    assert_eq!(server.post("/settings/a", &json!([3])).status, 200);
    server.crash_and_restart();
    assert_eq!(server.get("/settings").json(), json!({"a": [3], "b": {"c": 2}}));
    assert_eq!(
        (server.get("/settings/a").json(), server.get("/settings/z").json()),
        (json!([3]), json!(null))
    );
    assert_eq!(server.post("/settings", &json!([1])).status, 400);
    assert_eq!(server.post("/users", &json!({"username": "a"})).status, 400);
}

#[test]
fn workflows_of_the_user_are_kept_beside_the_shipped_one() {
    let server = Server::start();
    let write = |path: &str, body: &[u8]| server.send("POST", path, &[], body);
    assert_eq!(write("/userdata/workflows%2Fmine.json", b"{}").json(), "workflows/mine.json");
    assert_eq!(write("/userdata/workflows%2Fmine.json?overwrite=false", b"{}").status, 409);
    let info = write("/userdata/workflows%2Fdeep%2Fx.json?full_info=true", b"[1]").json();
    assert_eq!((&info["path"], &info["size"]), (&json!("workflows/deep/x.json"), &json!(3)));
    assert_eq!(server.get("/userdata?dir=workflows").json(), json!(["mine.json", "wanx-21.json"]));
    let all = server.get("/userdata?dir=workflows&recurse=true&split=true").json();
    assert_eq!(all[0], json!(["deep/x.json", "deep", "x.json"]));
    let moved = server.send("POST", "/userdata/workflows%2Fmine.json/move/workflows%2Fyours.json", &[], b"");
    assert_eq!(moved.json(), "workflows/yours.json");
    assert_eq!(server.get("/userdata/workflows%2Fmine.json").status, 404);
    assert_eq!(server.send("DELETE", "/userdata/workflows%2Fyours.json", &[], b"").status, 204);
    assert_eq!(server.send("DELETE", "/userdata/workflows%2Fwanx-21.json", &[], b"").status, 404);
    for path in [
        "/userdata/..%2Fqueue.sqlite3",
        "/userdata/%2Fetc%2Fpasswd",
        "/userdata/a%5Cb",
        "/userdata/.unfinished-1",
    ] {
        assert_eq!(server.get(path).status, 403, "{path}");
        assert_eq!(write(path, b"x").status, 403, "{path}");
    }
    // ComfyUI's front end keeps its bookmarks there.
    assert_eq!(server.get("/userdata/workflows%2F.index.json").status, 404);
    assert_eq!(write("/userdata/workflows%2F.index.json", b"{}").status, 200);
    assert_eq!(server.get("/userdata?dir=..").status, 403);
    assert_eq!(server.get("/userdata").status, 400);
}

#[test]
fn another_front_end_can_be_served() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("assets")).expect("made");
    std::fs::write(folder.path().join("index.html"), "another page").expect("written");
    std::fs::write(folder.path().join("assets/a.js"), "1").expect("written");
    let server =
        Server::with(&["--token", TOKEN, "--front-end-root", folder.path().to_str().expect("a path")]);
    let page = server.get("/");
    assert_eq!((page.text().as_str(), page.header("cache-control")), ("another page", Some("no-cache")));
    assert_eq!(server.get("/assets/a.js").header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(server.raw("GET", "/assets/a.js", &[], b"").status, 401);
    assert_eq!(server.get("/js/main.js").status, 404);
    let scripts = server.get("/api/extensions").json();
    assert_eq!(server.get(scripts[0].as_str().expect("a path")).status, 200);
    assert_eq!(server.raw("GET", "/login", &[], b"").status, 200);
}
