//! `/upload/image`.

use serde_json::json;

use super::server::{Server, exchange, guide, picture, sample};

#[test]
fn names_follow_the_content() {
    let server = Server::start();
    let stored = |name: &str| json!({"name": name, "subfolder": "", "type": "input"});
    assert_eq!(server.upload("girl.png", &sample(), &[]).json(), stored("girl.png"));
    assert_eq!(server.upload("girl.png", &sample(), &[]).json(), stored("girl.png"));
    for _ in 0..2 {
        assert_eq!(server.upload("girl.png", &picture(1), &[]).json(), stored("girl (1).png"));
    }
    assert_eq!(
        server.upload("girl.png", &picture(2), &[("overwrite", "True")]).json(),
        stored("girl (2).png")
    );
    assert_eq!(server.upload("girl.png", &picture(3), &[("overwrite", "true")]).json(), stored("girl.png"));
    assert_eq!(std::fs::read(server.data("input/girl.png")).expect("there"), picture(3));
    let names = server.get("/internal/files/input").json();
    assert_eq!(names.as_array().expect("a list").len(), 4, "{names}");
    let menu = server.get("/object_info/LoadImage").json();
    let menu = menu["LoadImage"]["input"]["required"]["image"][0].clone();
    assert_eq!(menu, json!(["girl (1).png", "girl (2).png", "girl.png", "sample.png"]));
}

#[test]
fn subfolders_are_made_and_echoed() {
    let server = Server::start();
    let stored = server.upload("girl.png", &sample(), &[("subfolder", "./a/b/")]).json();
    assert_eq!(stored, json!({"name": "girl.png", "subfolder": "./a/b/", "type": "input"}));
    let mut graph = guide();
    graph["42"]["inputs"]["image"] = json!("a/b/girl.png");
    server.submit(&graph);
    let temporary = server.upload("girl.png", &sample(), &[("type", "temp")]);
    assert_eq!(temporary.json()["type"], "temp");
    assert_eq!(server.get("/view?filename=girl.png&type=temp").body, sample());
}

#[test]
fn what_is_no_image_or_leads_elsewhere_is_refused() {
    let server = Server::start();
    let sample = sample();
    for name in ["../x.png", "/x.png", "x/y.png", "x\\\\y.png", "..", ".hidden.png"] {
        assert_eq!(server.upload(name, &sample, &[]).error_type(), "invalid_filename", "{name}");
    }
    for folder in ["../x", "/tmp", "a/../../x", "a\\b", ".hidden"] {
        assert_eq!(
            server.upload("x.png", &sample, &[("subfolder", folder)]).error_type(),
            "invalid_subfolder"
        );
    }
    assert_eq!(server.upload("x.png", &sample, &[("type", "output")]).error_type(), "invalid_type");
    for content in [&b"hello"[..], b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", &sample[..100]] {
        assert_eq!(server.upload("x.png", content, &[]).error_type(), "not_an_image");
    }
    let form = [("Content-Type", "multipart/form-data; boundary=B")];
    let text = b"--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nhello\r\n--B--\r\n";
    for (headers, body) in [(&form[..], &text[..]), (&form, b"--B--\r\n"), (&[], b"{}"), (&[], b"")] {
        let refused = server.send("POST", "/upload/image", headers, body);
        assert_eq!((refused.status, refused.error_type().as_str()), (400, "missing_image"));
    }
    assert_eq!(server.get("/internal/files/input").json(), json!(["sample.png"]));
    assert!(!server.outside().join("x.png").exists() && !server.data("x.png").exists());
}

#[test]
fn bodies_over_the_limit_get_413_and_the_connection_goes_on() {
    let server = Server::start();
    let (huge, before) = (vec![0; 51 << 20], server.memory_mib());
    let refused = server.upload("huge.png", &huge, &[]);
    assert_eq!((refused.status, refused.error_type().as_str()), (413, "request_too_large"));
    let grown = server.memory_mib().saturating_sub(before);
    assert!(grown < 25, "{grown} MiB more in memory");
    let graph = vec![b' '; (4 << 20) + 1];
    assert_eq!(server.send("POST", "/prompt", &[], &graph).status, 413);
    // Two requests on one connection: the second is answered after the first was refused.
    let bearer = format!("Authorization: Bearer {}\r\n", super::server::TOKEN);
    let first =
        format!("POST /prompt HTTP/1.1\r\nHost: h\r\n{bearer}Content-Length: {}\r\n\r\n", graph.len());
    let second = format!("GET /features HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{bearer}\r\n");
    let body = [&graph[..], second.as_bytes()].concat();
    let both = exchange(server.address(), first.as_bytes(), &body);
    assert_eq!(both.status, 413);
    assert!(both.text().contains("supports_preview_metadata"), "{}", both.text());
}

#[test]
fn a_length_that_no_disk_holds_is_too_large_and_no_full_disk() {
    let server = Server::start();
    let head = format!(
        "POST /upload/image HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 1000000000000000\r\n\r\n",
        super::server::TOKEN
    );
    let refused = exchange(server.address(), head.as_bytes(), b"--B\r\n");
    assert_eq!((refused.status, refused.error_type().as_str()), (413, "request_too_large"));
}

#[test]
fn names_outside_of_ascii_come_in_both_forms() {
    let server = Server::start();
    let upload = |names: &str| {
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"image\"; {names}\r\n\r\n");
        let body = [head.as_bytes(), &sample(), b"\r\n--B--\r\n"].concat();
        let form = [("Content-Type", "multipart/form-data; boundary=B")];
        server.send("POST", "/upload/image", &form, &body).json()
    };
    let extended = "filename*=utf-8''%E5%A5%B3.png";
    assert_eq!(upload(extended)["name"], "女.png");
    assert_eq!(upload(&format!("filename=\"other.png\"; {extended}"))["name"], "女.png");
    assert_eq!(upload("filename=\"女.png\"")["name"], "女.png");
    assert_eq!(upload("filename*=utf-8''..%2Fx.png")["error"]["type"], "invalid_filename");
}

#[test]
fn gzip_is_inflated_and_bombs_are_not() {
    let server = Server::start();
    let gzip = [("Content-Encoding", "gzip")];
    let refused = server.send("POST", "/prompt", &gzip, &gzipped(br#"{"prompt": {}}"#));
    assert_eq!(refused.error_type(), "prompt_no_outputs");
    assert_eq!(server.send("POST", "/prompt", &gzip, &gzipped(&vec![b' '; 100 << 20])).status, 413);
    assert_eq!(server.send("POST", "/prompt", &gzip, b"not gzip").status, 400);
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}
