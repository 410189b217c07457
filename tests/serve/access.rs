//! Who is let in.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use super::server::{Server, TOKEN};
use crate::support::{Sandbox, assert_fails};

#[test]
fn without_the_token_nothing_is_told() {
    let server = Server::start();
    let refused = server.raw("GET", "/queue", &[], b"");
    assert_eq!((refused.status, refused.text().as_str()), (401, "{\"error\":\"Authentication required.\"}"));
    assert_eq!(refused.header("content-type"), Some("application/json"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for headers in [
        vec![("Authorization", "Bearer wrong")],
        vec![("Authorization", "Bearer")],
        vec![("Authorization", "")],
        vec![("Authorization", TOKEN)],
        vec![("Cookie", "wan-run-session=0")],
    ] {
        assert_eq!(server.raw("GET", "/queue", &headers, b"").status, 401, "{headers:?}");
    }
    for path in [
        "/queue?token=",
        "/queue?token=x",
        "/userdata/x.js",
        "/ws?clientId=c",
        "/metrics",
        "/wan-run/session",
    ] {
        assert_eq!(server.raw("GET", path, &[], b"").status, 401, "{path}");
    }
    assert_eq!(server.raw("POST", "/prompt", &[], b"{}").status, 401);
    assert_eq!(server.raw("GET", "/health", &[], b"").json(), json!({"status": "ok"}));
}

#[test]
fn every_form_of_the_token_is_taken() {
    let server = Server::start();
    assert_eq!(server.raw("GET", &format!("/queue?token={TOKEN}"), &[], b"").status, 200);
    // base64("anyone:TOKEN")
    let basic = "Basic YW55b25lOiQyYiQxMiR0b2tlbi5mb3IvdGVzdHM=";
    assert_eq!(server.raw("GET", "/queue", &[("Authorization", basic)], b"").status, 200);
    assert_eq!(server.get("/wan-run/session").json()["token"], TOKEN);
}

#[test]
fn browsers_log_in_and_get_a_cookie() {
    let server = Server::start();
    let html = [("Accept", "text/html,application/xhtml+xml")];
    let sent_on = server.raw("GET", "/", &html, b"");
    assert_eq!((sent_on.status, sent_on.header("location")), (302, Some("/login")));
    assert!(server.raw("GET", "/login", &html, b"").text().contains("<form"));
    for file in ["/js/login.js", "/js/i18n.js", "/js/store.js"] {
        assert_eq!(server.raw("GET", file, &[], b"").status, 200, "{file}");
    }
    assert_eq!(server.raw("GET", "/js/main.js", &[], b"").status, 401);
    let wrong = server.raw("POST", "/login", &[], b"username=a&password=b");
    assert_eq!(wrong.header("location"), Some("/login?wrong_password=1"));
    let form = format!("username=a&password={}", TOKEN.replace('$', "%24").replace('/', "%2F"));
    let right = server.raw("POST", "/login", &[], form.as_bytes());
    let cookie = right.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    let page = server.raw("GET", "/", &[("Cookie", pair), html[0]], b"");
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").expect("a policy").contains("default-src 'self'"));
    let link = server.raw("GET", "/?token=%242b%2412%24token%2Efor%2Ftests", &html, b"");
    assert_eq!((link.status, link.header("location")), (302, Some("/")));
    assert!(link.header("set-cookie").is_some());
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::with(&["--token", TOKEN, "--enable-cors-header", "http://friend.example"]);
    let own = format!("http://{}", server.address());
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        assert_eq!(server.send("POST", "/prompt", &[("Origin", origin)], b"{}").status, 403, "{origin}");
        assert_eq!(server.send("GET", "/ws", &[("Origin", origin)], b"").status, 403, "{origin}");
    }
    assert_eq!(server.get("/prompt").json()["exec_info"]["queue_remaining"], 0, "nothing was queued");
    let cross = server.send("POST", "/queue", &[("Sec-Fetch-Site", "cross-site")], b"{}");
    assert_eq!(cross.status, 403);
    assert_eq!(server.send("GET", "/queue", &[("Origin", &own)], b"").status, 200);
    let friend = [("Origin", "http://friend.example")];
    let allowed = server.send("GET", "/queue", &friend, b"");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://friend.example"));
    let preflight = server.raw("OPTIONS", "/prompt", &friend, b"");
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").expect("headers").contains("Comfy-User"));
    let plain = server.raw("OPTIONS", "/prompt", &[], b"");
    assert_eq!((plain.status, plain.header("access-control-allow-origin")), (200, None));
}

#[test]
fn open_mode_refuses_names_that_strangers_can_point_here() {
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let server = Server::with(&["--insecure", "--listen", listen]);
        assert_eq!(server.raw("GET", "/queue", &[], b"").status, 200);
        let head = "GET /queue HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        assert_eq!(super::server::exchange(server.address(), head.as_bytes(), b"").status, 403, "{listen}");
    }
}

#[test]
fn a_token_is_made_and_kept_where_none_is_named() {
    let mut server = Server::with(&[]);
    let token = std::fs::read_to_string(server.data("token")).expect("a token");
    let link = server.raw("GET", &format!("/?token={}", token.trim()), &[("Accept", "text/html")], b"");
    let cookie = link.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
    assert_eq!(server.raw("GET", "/queue", &[], b"").status, 401);
    server.crash_and_restart();
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(server.raw("GET", "/queue", &[("Authorization", &bearer)], b"").status, 200);
    assert_eq!(server.raw("GET", "/queue", &[("Cookie", &cookie)], b"").status, 200);
    // What a crash may leave of it.
    std::fs::write(server.data("token"), "").expect("written");
    server.crash_and_restart();
    let another = std::fs::read_to_string(server.data("token")).expect("a token");
    assert!(another.trim().len() >= 8 && another != token, "{another}");
}

#[test]
fn other_machines_need_a_token_of_the_owners() {
    let sandbox = Sandbox::new();
    let serve = |more: &[&str]| {
        let args = [&["serve", "--model", "tiny", "--port", "0", "--data-dir", "data"], more].concat();
        sandbox.run(&args)
    };
    assert_fails(&serve(&["--listen", "0.0.0.0"]), 2, "found no token");
    assert_fails(&serve(&["--listen"]), 2, "--listen 0.0.0.0: found no token");
    let named = serve(&["--listen", "gpu.example"]);
    assert_fails(&named, 2, "expected localhost or one IP address of this machine, such as 127.0.0.1");
    assert_fails(&serve(&["--token", "short"]), 2, "fewer than 8 characters");
    assert_fails(&serve(&["--enable-cors-header", "*"]), 2, "expected an origin");
    assert_fails(&serve(&["--front-end-root", "."]), 2, "found no index.html");
    assert!(sandbox.names().is_empty(), "a start that fails leaves no folder: {:?}", sandbox.names());
}

#[test]
fn a_port_that_is_taken_leaves_no_data_folder() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let args = ["serve", "--model", "tiny", "--port", &port, "--data-dir", "data"];
    assert_fails(&sandbox.run(&args), 1, "choose another --port");
    assert!(!sandbox.path("data").exists());
}

#[test]
fn a_second_server_on_the_same_folder_is_told_so_before_its_port_is() {
    let server = Server::start();
    let port = server.address().rsplit(':').next().expect("a port");
    let data = server.data("").display().to_string();
    let args = ["serve", "--model", "tiny", "--token", TOKEN, "--port", port, "--data-dir", &data];
    assert_fails(&Sandbox::new().run(&args), 1, "in use by another server");
}

/// What a start prints, to standard output and as its log at this level.
fn told(options: &[&str], level: &str) -> (String, String) {
    let sandbox = Sandbox::new();
    let mut process = sandbox
        .command()
        .args(["serve", "--model", "tiny", "--port", "0", "--data-dir", "data"])
        .args(options)
        .env("WAN_RUN_LOG", level)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wan-run starts");
    let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let announced: Vec<String> = lines.take(3).map(|line| line.expect("text")).collect();
    process.kill().expect("killed");
    let log = process.wait_with_output().expect("ended").stderr;
    (announced.join("\n"), String::from_utf8(log).expect("text"))
}

#[test]
fn a_start_tells_address_token_and_a_link_and_little_else() {
    let (announced, log) = told(&["--token", TOKEN, "--listen", "localhost"], "info");
    let lines: Vec<&str> = announced.lines().collect();
    let address = lines[0].strip_prefix("address: ").expect("the address");
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    assert_eq!(lines[1], format!("token: {TOKEN}"));
    assert_eq!(lines[2], format!("page: {address}/?token=%242b%2412%24token%2Efor%2Ftests"));
    assert!(log.lines().count() < 5 && !log.contains(TOKEN), "{log}");
    let (announced, log) = told(&["--insecure", "--listen"], "debug");
    let lines: Vec<&str> = announced.lines().collect();
    let port = lines[0].strip_prefix("address: http://0.0.0.0:").expect("all networks");
    assert_eq!(lines[2], format!("page: http://127.0.0.1:{port}/"), "an address that browsers open");
    assert!(log.contains("stands for a file of the model"), "{log}");
}
