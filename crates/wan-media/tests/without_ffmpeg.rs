//! What a build without FFmpeg still does, and what it says about the rest.

#![cfg(not(feature = "ffmpeg"))]

use wan_media::probe::probe;
use wan_media::{Alpha, MediaError, OutputFormat, VideoOptions, VideoWriter, load_image, read_metadata};

#[test]
fn png_and_rgb_are_written_and_the_rest_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for format in OutputFormat::ALL {
        let path = folder.path().join(format.name());
        let options = VideoOptions { format, metadata: Some("{}".into()), ..VideoOptions::default() };
        let writer = VideoWriter::create(&path, 2, 1, options);
        if !matches!(format, OutputFormat::Png | OutputFormat::Rgb) {
            let error = writer.err().expect("needs FFmpeg");
            assert!(matches!(error, MediaError::NoFfmpeg { .. }) && error.is_usage());
            assert!(error.to_string().starts_with(&format!("the format {format} needs FFmpeg")), "{error}");
            assert!(!path.exists());
            continue;
        }
        let mut writer = writer.expect("opens");
        writer.push(&[1, 2, 3, 4, 5, 6]).expect("a frame");
        writer.finish().expect("finishes");
    }
    let frame = load_image(&folder.path().join("png/00001.png"), Alpha::Drop).expect("a PNG");
    assert_eq!(frame.data(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(read_metadata(&folder.path().join("png")).expect("readable").as_deref(), Some("{}"));
    assert_eq!(std::fs::read(folder.path().join("rgb")).expect("readable"), [1, 2, 3, 4, 5, 6]);
    assert!(matches!(read_metadata(&folder.path().join("rgb")), Err(MediaError::NoFfmpeg { .. })));
    assert!(matches!(probe(&folder.path().join("rgb")), Err(MediaError::NoFfmpeg { .. })));
}
