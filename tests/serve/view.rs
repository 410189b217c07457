//! `GET /view`.

use super::server::{Server, guide, sample};

#[test]
fn videos_are_served_whole_and_in_parts() {
    let server = Server::start();
    server.wait(&server.submit(&guide()));
    let path = "/view?filename=WanVideo2_1_00001.mp4";
    let file = std::fs::read(server.data("output/WanVideo2_1_00001.mp4")).expect("a video");
    let whole = server.get(path);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("video/mp4")));
    assert_eq!(whole.header("content-disposition"), Some("filename=\"WanVideo2_1_00001.mp4\""));
    assert_eq!(
        (whole.header("accept-ranges"), whole.header("x-content-type-options")),
        (Some("bytes"), Some("nosniff"))
    );
    assert!(whole.body == file);
    let head = server.send("HEAD", path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(file.len().to_string().as_str()));
    for (range, part) in [("bytes=0-9", &file[..10]), ("bytes=-5", &file[file.len() - 5..])] {
        let answer = server.send("GET", path, &[("Range", range)], b"");
        assert_eq!((answer.status, &answer.body[..]), (206, part), "{range}");
        assert!(answer.header("content-range").expect("a range").ends_with(&format!("/{}", file.len())));
    }
    for range in ["bytes=0-1,4-5", "lines=1-2"] {
        let answer = server.send("GET", path, &[("Range", range)], b"");
        assert_eq!((answer.status, answer.body.len()), (200, file.len()), "{range}");
    }
    let head = server.send("HEAD", path, &[("Range", "bytes=0-9")], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some(file.len().to_string().as_str())));
    for range in ["bytes=99999999-", "bytes=9-1", "bytes=x"] {
        let answer = server.send("GET", path, &[("Range", range)], b"");
        let total = format!("bytes */{}", file.len());
        assert_eq!((answer.status, answer.header("content-range")), (416, Some(total.as_str())), "{range}");
    }
    let video = std::fs::File::options().write(true).open(server.data("output/WanVideo2_1_00001.mp4"));
    let video = video.expect("the video");
    let now = video.metadata().and_then(|m| m.modified()).expect("a time");
    let before_all = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1 << 28);
    video.set_modified(before_all).expect("set");
    let old = server.get(path);
    assert_eq!((old.status, old.header("last-modified")), (200, Some("Thu, 01 Jan 1970 00:00:00 GMT")));
    video.set_modified(now).expect("set");
    let etag = whole.header("etag").expect("a tag").to_owned();
    let date = whole.header("last-modified").expect("a date").to_owned();
    assert_eq!(server.send("GET", path, &[("If-None-Match", &etag)], b"").status, 304);
    assert_eq!(server.send("GET", path, &[("If-Modified-Since", &date)], b"").status, 304);
    assert_eq!(
        server.send("GET", path, &[("If-Range", "\"other\""), ("Range", "bytes=0-9")], b"").status,
        200
    );
    assert_eq!(server.get(&format!("{path}&preview=jpeg")).status, 415);
}

#[test]
fn refusals_have_comfyuis_codes_and_empty_bodies() {
    let server = Server::start();
    std::fs::write(server.data("secret.png"), b"secret").expect("written");
    for (path, status) in [
        ("/view", 404),
        ("/view?filename=", 400),
        ("/view?filename=unknown.mp4", 404),
        ("/view?filename=..%2f..%2fx", 400),
        ("/view?filename=..%2fsecret.png", 400),
        ("/view?filename=%2e%2e%5csecret.png", 400),
        ("/view?filename=/etc/passwd", 400),
        ("/view?filename=x%00.png", 400),
        ("/view?filename=x&type=bogus", 400),
        ("/view?filename=secret.png&subfolder=..", 403),
        ("/view?filename=passwd&subfolder=/etc", 403),
        ("/view?filename=input&subfolder=.", 404),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
    }
}

#[test]
fn links_do_not_lead_out() {
    let server = Server::start();
    std::fs::write(server.data("secret.png"), b"secret").expect("written");
    std::os::unix::fs::symlink("../secret.png", server.data("output/link.png")).expect("linked");
    std::os::unix::fs::symlink("..", server.data("output/up")).expect("linked");
    assert_eq!(server.get("/view?filename=link.png").status, 404);
    assert_eq!(server.get("/view?filename=secret.png&subfolder=up").status, 404);
}

#[test]
fn images_come_as_previews_and_channels() {
    let server = Server::start();
    let path = "/view?filename=sample.png&type=input";
    assert!(server.get(path).body == sample());
    assert!(server.get("/view?filename=sample.png%20[input]").body == sample());
    for (query, kind, start) in [
        ("preview=jpeg;50", "image/jpeg", &b"\xff\xd8"[..]),
        ("preview=webp", "image/webp", b"RIFF"),
        ("channel=rgb", "image/png", b"\x89PNG"),
        ("channel=a", "image/png", b"\x89PNG"),
    ] {
        let answer = server.get(&format!("{path}&{query}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{query}");
        assert!(answer.body.starts_with(start), "{query}");
    }
    std::fs::write(server.data("output/page.html"), b"<script>").expect("written");
    let page = server.get("/view?filename=page.html");
    assert_eq!(page.header("content-type"), Some("application/octet-stream"));
    assert!(page.header("content-disposition").expect("one").starts_with("attachment"));
}
