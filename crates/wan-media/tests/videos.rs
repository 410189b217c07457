//! Videos out: what is in the file, that it is reproducible, and that nothing half-written is left.

#![cfg(feature = "ffmpeg")]

use std::fs;
use std::path::Path;

use image::AnimationDecoder;
use wan_media::probe::{decode_frames, probe};
use wan_media::{
    FrameRate, METADATA_KEY, MediaError, OutputFormat, PixelFormat, RgbImage, VideoOptions, VideoWriter,
    read_metadata,
};

/// A smooth picture that moves from frame to frame.
fn frame(width: u32, height: u32, index: usize) -> RgbImage {
    let pixel = |x: u32, y: u32| {
        let wave = |phase: f32| (128.0 + 100.0 * (phase + index as f32 * 0.2).sin()) as u8;
        [wave(x as f32 * 0.1), wave(y as f32 * 0.13), wave((x + y) as f32 * 0.05)]
    };
    let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    RgbImage::new(width, height, data).expect("valid size")
}

fn write(path: &Path, size: (u32, u32), frames: usize, options: VideoOptions) -> u64 {
    let mut writer = VideoWriter::create(path, size.0, size.1, options).expect("opens");
    for index in 0..frames {
        writer.push(frame(size.0, size.1, index).data()).expect("a frame");
    }
    writer.finish().expect("finishes").frames
}

fn of(format: OutputFormat) -> VideoOptions {
    VideoOptions { format, ..VideoOptions::default() }
}

fn mean_difference(found: &RgbImage, expected: &RgbImage) -> f64 {
    assert_eq!((found.width(), found.height()), (expected.width(), expected.height()));
    let sum: u64 = found.data().iter().zip(expected.data()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / found.data().len() as f64
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn the_usual_mp4_has_the_usual_facts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.mp4");
    assert_eq!(write(&path, (96, 64), 81, VideoOptions::default()), 81);
    let info = probe(&path).expect("a video");
    assert_eq!((info.codec.as_str(), info.pixel_format.as_str()), ("h264", "yuv420p"));
    assert_eq!((info.width, info.height, info.fps, info.frames), (96, 64, (16, 1), 81));
    assert_eq!(info.seconds, 5.0625);
    let color = &info.color;
    assert_eq!(
        [&color.space, &color.primaries, &color.transfer, &color.range],
        ["bt709", "bt709", "bt709", "tv"]
    );

    let frames = decode_frames(&path).expect("decodes");
    assert_eq!(frames.len(), 81);
    for (index, found) in frames.iter().enumerate() {
        let difference = mean_difference(found, &frame(96, 64, index));
        assert!(difference < 3.0, "frame {index} is off by {difference} on average");
    }

    // The index lies in front of the pictures, so that playback starts at once.
    let bytes = fs::read(&path).expect("readable");
    let at = |name: &[u8]| bytes.windows(4).position(|window| window == name).expect("present");
    assert!(at(b"moov") < at(b"mdat"));
}

#[test]
fn flat_colours_come_back_as_they_were() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for pixel_format in PixelFormat::ALL {
        for (number, rgb) in
            [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3], [0; 3], [200, 120, 40]].iter().enumerate()
        {
            let path = folder.path().join(format!("{pixel_format}-{number}.mp4"));
            let options = VideoOptions { crf: 4, pixel_format, ..VideoOptions::default() };
            let picture = RgbImage::filled(32, 32, *rgb).expect("valid size");
            let mut writer = VideoWriter::create(&path, 32, 32, options).expect("opens");
            for _ in 0..3 {
                writer.push(picture.data()).expect("a frame");
            }
            writer.finish().expect("finishes");
            assert_eq!(probe(&path).expect("a video").pixel_format, pixel_format.name());
            for found in decode_frames(&path).expect("decodes") {
                let difference = mean_difference(&found, &picture);
                assert!(difference <= 2.0, "{rgb:?} in {pixel_format} is off by {difference}");
            }
        }
    }
}

#[test]
fn frame_rate_and_odd_sizes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("odd.mp4");
    let fps = FrameRate::new(30_000, 1001).expect("valid");
    write(&path, (33, 47), 7, VideoOptions { fps, crf: 1, ..VideoOptions::default() });
    let info = probe(&path).expect("a video");
    assert_eq!((info.width, info.height, info.fps, info.frames), (34, 48, (30_000, 1001), 7));
    assert!((info.seconds - 7.0 * 1001.0 / 30_000.0).abs() < 1e-3);
}

/// Leaves a pattern in freed memory, for code that reads what it has not written.
fn dirty_the_heap(pattern: u8) {
    let blocks: Vec<Vec<u8>> = (0..400).map(|n| vec![pattern; 64 << (n % 10)]).collect();
    assert!(std::hint::black_box(&blocks).iter().all(|block| block[63] == pattern));
}

#[test]
fn the_same_frames_give_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for format in [OutputFormat::Mp4, OutputFormat::Webp, OutputFormat::Gif] {
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for path in [&a, &b] {
            dirty_the_heap(if path == &a { 0x55 } else { 0xAA });
            let metadata = Some("{\"seed\":1}".to_owned());
            // Ten macroblocks wide: x264's AVX-512 code reads whole groups of sixteen.
            write(path, (160, 96), 20, VideoOptions { metadata, overwrite: true, ..of(format) });
        }
        assert!(fs::read(&a).expect("readable") == fs::read(&b).expect("readable"), "{format} differs");
    }
}

#[test]
fn pingpong_and_loops_repeat_frames() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.rgb");
    // (pingpong, loop count, frames in) and the shades that come out.
    let rows: [(bool, u32, u8, &[u8]); 6] = [
        (false, 0, 3, &[0, 1, 2]),
        (true, 0, 4, &[0, 1, 2, 3, 2, 1]),
        (true, 0, 2, &[0, 1]),
        (true, 0, 1, &[0]),
        (false, 2, 2, &[0, 1, 0, 1, 0, 1]),
        (true, 1, 3, &[0, 1, 2, 1, 0, 1, 2, 1]),
    ];
    for (pingpong, loop_count, count, expected) in rows {
        let options = VideoOptions { pingpong, loop_count, overwrite: true, ..of(OutputFormat::Rgb) };
        let mut writer = VideoWriter::create(&path, 2, 1, options).expect("opens");
        for shade in 0..count {
            writer.push(&[shade; 6]).expect("a frame");
        }
        assert_eq!(writer.finish().expect("finishes").frames, expected.len() as u64);
        let shades: Vec<u8> = fs::read(&path).expect("readable").chunks(6).map(|frame| frame[0]).collect();
        assert_eq!(shades, expected, "pingpong {pingpong}, {loop_count} loops");
    }
    let mp4 = folder.path().join("a.mp4");
    let options = VideoOptions { pingpong: true, loop_count: 1, ..VideoOptions::default() };
    assert_eq!(write(&mp4, (32, 32), 5, options), 16);
    assert_eq!(probe(&mp4).expect("a video").frames, 16);
}

#[test]
fn gif_has_all_frames_at_the_right_speed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.gif");
    write(&path, (64, 48), 17, of(OutputFormat::Gif));
    let info = probe(&path).expect("a video");
    assert_eq!((info.codec.as_str(), info.frames, info.width, info.height), ("gif", 17, 64, 48));
    let bytes = fs::read(&path).expect("readable");
    let decoder = image::codecs::gif::GifDecoder::new(std::io::Cursor::new(&bytes)).expect("a GIF");
    let frames = decoder.into_frames().collect_frames().expect("decodes");
    let total: u32 = frames.iter().map(|frame| frame.delay().numer_denom_ms().0).sum();
    // 17/16 s in steps of 10 ms.
    assert!((1040..=1080).contains(&total), "{total} ms");
    for (index, found) in frames.iter().enumerate() {
        let rgb = image::DynamicImage::from(found.buffer().clone()).into_rgb8();
        let found = RgbImage::new(64, 48, rgb.into_raw()).expect("valid size");
        let difference = mean_difference(&found, &frame(64, 48, index));
        assert!(difference < 12.0, "frame {index} is off by {difference} on average");
    }
}

#[test]
fn webp_has_all_frames_at_the_right_speed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.webp");
    let metadata = Some("{\"prompt\":\"x\"}".to_owned());
    for (count, total_ms, loop_count, counts_plays, expected_plays) in [
        (16, 1000, 0, false, 0),
        (1, 0, 3, false, 0),
        (4, 250, 2, false, 3),
        (4, 250, 1, true, 1),
        (4, 250, 0, true, 0),
    ] {
        let options = VideoOptions {
            loop_count,
            counts_plays,
            overwrite: true,
            metadata: metadata.clone(),
            ..of(OutputFormat::Webp)
        };
        write(&path, (64, 48), count, options);
        assert_eq!(read_metadata(&path).expect("readable"), metadata, "{count} frames");
        let bytes = fs::read(&path).expect("readable");
        let decoder = image::codecs::webp::WebPDecoder::new(std::io::Cursor::new(&bytes)).expect("a WebP");
        if count == 1 {
            let still = wan_media::load_image(&path, wan_media::Alpha::Drop).expect("a still");
            assert!(mean_difference(&still, &frame(64, 48, 0)) < 4.0);
            continue;
        }
        let first = wan_media::load_image(&path, wan_media::Alpha::Drop).expect("the first frame");
        assert!(mean_difference(&first, &frame(64, 48, 0)) < 4.0);
        let frames = decoder.into_frames().collect_frames().expect("decodes");
        assert_eq!(frames.len(), count);
        let total: f64 = frames
            .iter()
            .map(|f| f64::from(f.delay().numer_denom_ms().0) / f64::from(f.delay().numer_denom_ms().1))
            .sum();
        assert!((total - f64::from(total_ms)).abs() < 5.0, "{total} ms for {count} frames");
        for (index, found) in frames.iter().enumerate() {
            let rgb = image::DynamicImage::from(found.buffer().clone()).into_rgb8();
            let found = RgbImage::new(64, 48, rgb.into_raw()).expect("valid size");
            let difference = mean_difference(&found, &frame(64, 48, index));
            assert!(difference < 4.0, "frame {index} is off by {difference} on average");
        }
        let at = bytes.windows(4).position(|window| window == b"ANIM").expect("animated");
        let plays = u16::from_le_bytes([bytes[at + 12], bytes[at + 13]]);
        assert_eq!(plays, expected_plays, "{loop_count} loops, counts plays: {counts_plays}");
    }
}

#[test]
fn png_frames_are_exact_and_numbered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("frames");
    let metadata = Some("{\"prompt\":\"x\"}".to_owned());
    let options = VideoOptions { metadata: metadata.clone(), ..of(OutputFormat::Png) };
    write(&path, (21, 13), 3, options.clone());
    assert_eq!(names_in(&path), ["00001.png", "00002.png", "00003.png"]);
    for index in 0..3 {
        let found =
            wan_media::load_image(&path.join(format!("{:05}.png", index + 1)), wan_media::Alpha::Drop);
        assert_eq!(found.expect("a PNG"), frame(21, 13, index));
    }
    assert_eq!(read_metadata(&path).expect("readable"), metadata);
    assert_eq!(read_metadata(&path.join("00002.png")).expect("readable"), None);

    // Replaced as a whole where that is allowed, and only where nothing else lies in it.
    let again = VideoOptions { overwrite: true, ..options };
    write(&path, (21, 13), 2, again.clone());
    assert_eq!(names_in(&path), ["00001.png", "00002.png"]);
    fs::write(path.join("diary.txt"), "mine").expect("writable");
    let error = VideoWriter::create(&path, 21, 13, again).err().expect("not ours to replace");
    assert!(matches!(error, MediaError::NotReplaceable { .. }), "{error}");
    assert_eq!(names_in(folder.path()), ["frames"]);
}

#[test]
fn metadata_comes_back_from_every_format_that_has_a_place_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = r#"{"prompt":"a \"cat\"; #1 = \\ best\nof all","seed":18446744073709551615}"#.to_owned();
    let unicode = "{\"prompt\":\"一只猫 à l'œuvre 🎬\"}".to_owned();
    let long = format!("{{\"prompt\":\"{}\"}}", "long é ".repeat(30_000));
    for format in [OutputFormat::Mp4, OutputFormat::Gif, OutputFormat::Webp, OutputFormat::Png] {
        for (number, record) in [&plain, &unicode, &long].into_iter().enumerate() {
            let path = folder.path().join(format!("{number}.{format}"));
            let options = VideoOptions { metadata: Some(record.clone()), ..of(format) };
            write(&path, (32, 16), 2, options);
            let found = read_metadata(&path).expect("readable");
            assert!(found.as_ref() == Some(record), "record {number} of {format}");
        }
        let path = folder.path().join(format!("without.{format}"));
        write(&path, (32, 16), 2, of(format));
        assert_eq!(read_metadata(&path).expect("readable"), None, "{format}");
        let bytes = if format == OutputFormat::Png { path.join("00001.png") } else { path };
        let bytes = fs::read(bytes).expect("readable");
        assert!(!bytes.windows(METADATA_KEY.len()).any(|window| window == METADATA_KEY.as_bytes()));
    }
    let rgb = folder.path().join("a.rgb");
    write(&rgb, (32, 16), 2, of(OutputFormat::Rgb));
    assert!(matches!(read_metadata(&rgb), Err(MediaError::Video { .. })));
    assert!(matches!(read_metadata(&folder.path().join("nothing")), Err(MediaError::NotFound { .. })));
}

#[test]
fn a_dropped_or_failed_writer_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for format in OutputFormat::ALL {
        let path = folder.path().join("out");
        let mut writer = VideoWriter::create(&path, 32, 16, of(format)).expect("opens");
        writer.push(frame(32, 16, 0).data()).expect("a frame");
        assert_eq!(names_in(folder.path()).len(), 1, "one temporary name for {format}");
        assert!(!path.exists(), "{format} appears before it is complete");
        let error = writer.push(&[0; 7]).expect_err("7 bytes are no frame");
        assert_eq!(error.to_string(), "frame has 7 bytes, expected 1536 (32x16 pixels, 3 bytes each)");
        drop(writer);
        assert!(names_in(folder.path()).is_empty(), "{format} left something");

        let writer = VideoWriter::create(&path, 32, 16, of(format)).expect("opens");
        assert!(matches!(writer.finish(), Err(MediaError::NoFrames { .. })));
        assert!(names_in(folder.path()).is_empty(), "{format} left something");
    }
}

#[test]
fn existing_outputs_are_kept_unless_overwriting_is_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for format in [OutputFormat::Mp4, OutputFormat::Gif, OutputFormat::Rgb] {
        let path = folder.path().join(format!("a.{format}"));
        fs::write(&path, "earlier").expect("writable");
        let error = VideoWriter::create(&path, 32, 16, of(format)).err().expect("it exists");
        assert!(matches!(error, MediaError::Exists { .. }) && error.is_usage(), "{error}");
        write(&path, (32, 16), 2, VideoOptions { overwrite: true, ..of(format) });
        assert!(fs::read(&path).expect("readable") != b"earlier");

        // A name that is taken while the video is being made.
        let path = folder.path().join(format!("b.{format}"));
        let mut writer = VideoWriter::create(&path, 32, 16, of(format)).expect("opens");
        writer.push(frame(32, 16, 0).data()).expect("a frame");
        fs::write(&path, "meanwhile").expect("writable");
        assert!(matches!(writer.finish(), Err(MediaError::Exists { .. })));
        assert_eq!(fs::read(&path).expect("readable"), b"meanwhile");
    }
    assert!(names_in(folder.path()).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("missing/a.mp4");
    let error = VideoWriter::create(&path, 32, 16, of(OutputFormat::Mp4)).err().expect("no folder");
    assert_eq!(
        error.to_string(),
        format!(
            "{}: the output folder {} does not exist, create it first",
            path.display(),
            folder.path().join("missing").display()
        )
    );
    let options = VideoOptions { overwrite: true, ..of(OutputFormat::Mp4) };
    let error = VideoWriter::create(folder.path(), 32, 16, options.clone()).err().expect("a folder");
    assert!(matches!(error, MediaError::NotReplaceable { found: "a folder", .. }), "{error}");
    let error = VideoWriter::create(Path::new("/dev/null"), 32, 16, options).err().expect("a device");
    assert!(matches!(error, MediaError::NotReplaceable { found: "a device or pipe", .. }), "{error}");
}

#[test]
fn names_with_colons_spaces_and_percent_signs_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inner = folder.path().join("http:x y");
    fs::create_dir(&inner).expect("writable");
    let path = inner.join("out:%05d 100%.mp4");
    write(&path, (32, 16), 2, VideoOptions::default());
    assert_eq!(probe(&path).expect("a video").frames, 2);
    assert_eq!(names_in(&inner), ["out:%05d 100%.mp4"]);
}

#[test]
fn new_files_have_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plain, video) = (folder.path().join("plain"), folder.path().join("a.mp4"));
    fs::write(&plain, "").expect("writable");
    write(&video, (32, 16), 2, VideoOptions::default());
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode(&video), mode(&plain));
}

#[test]
fn a_link_is_written_through() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (target, link) = (folder.path().join("target.rgb"), folder.path().join("link.rgb"));
    fs::write(&target, "earlier").expect("writable");
    std::os::unix::fs::symlink(&target, &link).expect("writable");
    write(&link, (2, 1), 1, VideoOptions { overwrite: true, ..of(OutputFormat::Rgb) });
    assert!(link.is_symlink());
    assert_eq!(fs::read(&target).expect("readable").len(), 6);
}

#[test]
fn what_is_not_a_video_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("text.mp4");
    fs::write(&path, "no video at all").expect("writable");
    let error = probe(&path).expect_err("text");
    assert!(error.to_string().starts_with(&format!("{}: not a readable video: ", path.display())), "{error}");
}
