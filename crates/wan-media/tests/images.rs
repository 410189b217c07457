//! Images in: every format, orientation, sample type and way to be broken.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use wan_media::{Alpha, MediaError, RgbImage, decode_image, load_image};

/// A picture with a different colour at each pixel.
fn sample(width: u32, height: u32) -> DynamicImage {
    ImageBuffer::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8])).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("in memory");
    bytes.into_inner()
}

fn decoded(bytes: &[u8]) -> RgbImage {
    decode_image(bytes, "sample", Alpha::Drop).expect("a sound image")
}

fn refusal(bytes: &[u8]) -> String {
    let error = decode_image(bytes, "sample", Alpha::Drop).expect_err("a broken image");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.starts_with("sample: "), "{text}");
    text
}

#[test]
fn lossless_formats_give_the_pixels_that_went_in() {
    let picture = sample(23, 17);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        let found = decoded(&encoded(&picture, format));
        assert_eq!((found.width(), found.height()), (23, 17), "{format:?}");
        assert_eq!(found.data(), picture.as_bytes(), "{format:?}");
    }
}

#[test]
fn jpeg_gives_nearly_the_pixels_that_went_in() {
    let flat = DynamicImage::from(ImageBuffer::from_pixel(40, 24, Rgb([200u8, 100, 50])));
    let found = decoded(&encoded(&flat, ImageFormat::Jpeg));
    for (&found, &expected) in found.data().iter().zip(flat.as_bytes()) {
        assert!(found.abs_diff(expected) <= 2, "{found} for {expected}");
    }
}

#[test]
fn the_content_counts_and_not_the_extension() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("actually-png.jpg");
    fs::write(&path, encoded(&sample(5, 4), ImageFormat::Png)).expect("writable");
    assert_eq!(load_image(&path, Alpha::Drop).expect("a PNG").data(), sample(5, 4).as_bytes());
}

#[test]
fn of_a_gif_the_first_frame_is_taken() {
    let mut bytes = Vec::new();
    {
        let mut encoder = GifEncoder::new(&mut bytes);
        for shade in [Rgba([255u8, 0, 0, 255]), Rgba([0, 0, 255, 255])] {
            let frame = image::Frame::new(ImageBuffer::from_pixel(6, 5, shade));
            encoder.encode_frame(frame).expect("in memory");
        }
    }
    assert_eq!(decoded(&bytes), RgbImage::filled(6, 5, [255, 0, 0]).expect("valid size"));
}

#[test]
fn sixteen_bits_keep_the_high_byte_and_grey_becomes_rgb() {
    let grey = DynamicImage::from(ImageBuffer::from_pixel(3, 2, Luma([0x7Fu8])));
    assert_eq!(decoded(&encoded(&grey, ImageFormat::Png)).data(), [0x7F; 18]);
    let grey = DynamicImage::from(ImageBuffer::from_pixel(3, 2, Luma([0xABFFu16])));
    assert_eq!(decoded(&encoded(&grey, ImageFormat::Png)).data(), [0xAB; 18]);
    let colour = DynamicImage::from(ImageBuffer::from_pixel(1, 1, Rgb([0x01FFu16, 0x8000, 0xFFFF])));
    assert_eq!(decoded(&encoded(&colour, ImageFormat::Png)).data(), [0x01, 0x80, 0xFF]);
}

#[test]
fn alpha_is_dropped_or_laid_over_a_background() {
    let rgba = |pixel| encoded(&ImageBuffer::from_pixel(1, 1, Rgba::<u8>(pixel)).into(), ImageFormat::Png);
    let grey = |pixel| encoded(&ImageBuffer::from_pixel(1, 1, LumaA::<u8>(pixel)).into(), ImageFormat::Png);
    let rows = [
        // A pixel that cannot be seen keeps its colour, as Pillow's convert("RGB") has it.
        (rgba([10, 20, 30, 0]), Alpha::Drop, [10, 20, 30]),
        (rgba([10, 20, 30, 0]), Alpha::White, [255, 255, 255]),
        (rgba([10, 20, 30, 0]), Alpha::Black, [0, 0, 0]),
        (rgba([10, 20, 30, 255]), Alpha::White, [10, 20, 30]),
        (rgba([100, 200, 0, 128]), Alpha::White, [177, 227, 127]), // 100 a + 255 (1 - a), a = 128/255
        (rgba([100, 200, 0, 128]), Alpha::Black, [50, 100, 0]),
        (grey([40, 0]), Alpha::Drop, [40, 40, 40]),
        (grey([40, 0]), Alpha::White, [255, 255, 255]),
    ];
    for (bytes, alpha, expected) in rows {
        let found = decode_image(&bytes, "sample", alpha).expect("a sound image");
        assert_eq!(found.data(), expected, "{alpha:?}");
    }
    assert_eq!("white".parse::<Alpha>().ok(), Some(Alpha::White));
    assert!("pink".parse::<Alpha>().is_err());
}

#[test]
fn a_palette_with_a_transparent_entry_is_expanded() {
    let mut bytes = Vec::new();
    {
        let mut encoder = png::Encoder::new(&mut bytes, 3, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Two);
        encoder.set_palette(vec![1, 2, 3, 40, 50, 60, 7, 8, 9]);
        encoder.set_trns(vec![255, 0]);
        let mut writer = encoder.write_header().expect("in memory");
        writer.write_image_data(&[0b00_01_10_00]).expect("in memory");
    }
    assert_eq!(decoded(&bytes).data(), [1, 2, 3, 40, 50, 60, 7, 8, 9]);
    let white = decode_image(&bytes, "sample", Alpha::White).expect("a sound image");
    assert_eq!(white.data(), [1, 2, 3, 255, 255, 255, 7, 8, 9]);
}

/// The EXIF block with nothing but an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    tiff
}

/// Two by two blocks of 16 pixels, `A B / C D`, as a JPEG with an orientation.
fn oriented_jpeg(orientation: u8) -> Vec<u8> {
    let shades = [[20u8, 90], [160, 230]];
    let picture = ImageBuffer::from_fn(32, 32, |x, y| Luma([shades[(y / 16) as usize][(x / 16) as usize]]));
    // A wide picture, so that swapped sides show.
    let wide = DynamicImage::from(picture).resize_exact(64, 32, image::imageops::FilterType::Nearest);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 95).encode_image(&wide).expect("in memory");
    let payload = [b"Exif\0\0".as_slice(), &exif(orientation)].concat();
    let mut out = jpeg[..2].to_vec();
    out.extend([0xFF, 0xE1]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
    out.extend(&jpeg[2..]);
    out
}

#[test]
fn all_eight_exif_orientations_are_applied() {
    // Where the blocks end up, row by row (EXIF 2.32, tag 0x0112).
    let rows = [
        (1, "AB/CD"),
        (2, "BA/DC"),
        (3, "DC/BA"),
        (4, "CD/AB"),
        (5, "AC/BD"),
        (6, "CA/DB"),
        (7, "DB/CA"),
        (8, "BD/AC"),
    ];
    for (orientation, expected) in rows {
        let picture = decoded(&oriented_jpeg(orientation));
        let size = if orientation < 5 { (64, 32) } else { (32, 64) };
        assert_eq!((picture.width(), picture.height()), size, "orientation {orientation}");
        let block = |x: u32, y: u32| {
            let value = picture.pixel(picture.width() * x / 4, picture.height() * y / 4)[0];
            ["A", "B", "C", "D"][(usize::from(value) - 10) / 70]
        };
        let found = format!("{}{}/{}{}", block(1, 1), block(3, 1), block(1, 3), block(3, 3));
        assert_eq!(found, expected, "orientation {orientation}");
    }
}

#[test]
fn orientation_of_a_png_is_applied() {
    let mut info = png::Info::with_size(2, 1);
    info.color_type = png::ColorType::Rgb;
    info.exif_metadata = Some(exif(6).into());
    let mut bytes = Vec::new();
    {
        let encoder = png::Encoder::with_info(&mut bytes, info).expect("valid header");
        let mut writer = encoder.write_header().expect("in memory");
        writer.write_image_data(&[1, 2, 3, 4, 5, 6]).expect("in memory");
    }
    let picture = decoded(&bytes);
    assert_eq!((picture.width(), picture.height()), (1, 2));
    assert_eq!(picture.data(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let picture = sample(64, 48);
    let mut gif = Vec::new();
    let frame = image::Frame::new(picture.to_rgba8());
    GifEncoder::new(&mut gif).encode_frame(frame).expect("in memory");
    // The last bytes of these hold no pixels: PNG's end chunk and checksums, GIF's trailer, WebP's padding.
    let samples = [
        ("JPEG", encoded(&picture, ImageFormat::Jpeg), 0),
        ("PNG", encoded(&picture, ImageFormat::Png), 24),
        ("WebP", encoded(&picture, ImageFormat::WebP), 1),
        ("BMP", encoded(&picture, ImageFormat::Bmp), 0),
        ("TIFF", encoded(&picture, ImageFormat::Tiff), 0),
        ("GIF", gif, 4),
    ];
    for (format, bytes, tail) in samples {
        assert_eq!(decoded(&bytes).width(), 64, "{format}");
        for kept in [30, 35, 50, 65, 80, 95, 99] {
            let length = (bytes.len() * kept / 100).min(bytes.len() - 1 - tail);
            let cut = decode_image(&bytes[..length], "sample", Alpha::Drop);
            let text = cut.expect_err(&format!("{kept} % of a {format}")).to_string();
            assert!(text.contains(format), "{kept} % of a {format}: {text}");
        }
        let cut = decode_image(&bytes[..bytes.len() - 1 - tail], "sample", Alpha::Drop);
        let text = cut.expect_err(format).to_string();
        assert!(text.contains(&format!("truncated {format}")), "{format} less its last byte: {text}");
    }
}

#[test]
fn a_jpeg_cut_inside_its_scan_says_so() {
    let bytes = encoded(&sample(64, 48), ImageFormat::Jpeg);
    let length = bytes.len() - 40;
    assert_eq!(
        refusal(&bytes[..length]),
        format!(
            "sample: truncated JPEG file: the data ends after {length} bytes, before the image is complete"
        )
    );
}

/// Peak of the address space in KiB: an allocation shows here even if it is never touched.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("VmPeak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn claiming(mut bytes: Vec<u8>, at: [usize; 2], side: &[u8]) -> Vec<u8> {
    for at in at {
        bytes[at..at + side.len()].copy_from_slice(side);
    }
    bytes
}

#[test]
fn a_header_that_claims_a_huge_picture_is_refused_without_allocating() {
    let picture = sample(4, 4);
    let of = |format| encoded(&picture, format);
    let gif = [b"GIF89a".as_slice(), &[0, 0, 0, 0, 0, 0, 0, b';']].concat();
    let jpeg = of(ImageFormat::Jpeg);
    let frame_header = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a baseline JPEG");
    let samples = [
        ("PNG", claiming(of(ImageFormat::Png), [16, 20], &60_000u32.to_be_bytes())),
        ("BMP", claiming(of(ImageFormat::Bmp), [18, 22], &60_000u32.to_le_bytes())),
        ("GIF", claiming(gif, [6, 8], &60_000u16.to_le_bytes())),
        ("JPEG", claiming(jpeg, [frame_header + 5, frame_header + 7], &60_000u16.to_be_bytes())),
    ];
    let before = peak_kib();
    for (format, bytes) in samples {
        assert_eq!(
            refusal(&bytes),
            format!(
                "sample: the {format} header claims 60000x60000 pixels, expected at most 16384 a side and \
                 200 megapixels"
            )
        );
    }
    let grown = peak_kib() - before;
    assert!(grown < 1 << 20, "the address space grew by {grown} KiB; the pixels alone would be 10 GiB");
}

#[test]
fn a_large_area_within_the_sides_is_refused() {
    let bytes = claiming(encoded(&sample(4, 4), ImageFormat::Png), [16, 20], &16_000u32.to_be_bytes());
    assert!(refusal(&bytes).contains("claims 16000x16000 pixels"));
}

#[test]
fn a_gif_frame_larger_than_its_screen_is_refused_without_allocating() {
    // A 4x4 screen without colour table, then a frame of 60,000x60,000.
    let mut bytes = b"GIF89a\x04\0\x04\0\0\0\0,\0\0\0\0".to_vec();
    bytes.extend(60_000u16.to_le_bytes());
    bytes.extend(60_000u16.to_le_bytes());
    bytes.extend(b"\x80\0\0\0\xFF\xFF\xFF\x02\x02\x4C\x01\0;");
    let before = peak_kib();
    refusal(&bytes);
    assert!(peak_kib() - before < 1 << 20);
}

#[test]
fn zero_size_is_named() {
    let bytes = claiming(encoded(&sample(4, 4), ImageFormat::Png), [16, 16], &0u32.to_be_bytes());
    assert_eq!(refusal(&bytes), "sample: PNG image of zero size (0x4), expected at least 1x1");
    let gif = b"GIF89a\0\0\x04\0\0\0\0;";
    assert_eq!(refusal(gif), "sample: GIF image of zero size (0x4), expected at least 1x1");
}

#[test]
fn what_is_not_an_image_is_described() {
    let rows: [(&[u8], &str); 4] = [
        (b"hello world, this is text\n", "found text"),
        (b"\0\0\0\x1cftypisom\0\0\x02\0", "found an MP4, MOV, HEIC or AVIF container"),
        (b"%PDF-1.7 ...", "found a PDF document"),
        (b"\x01\x02\x03\xFE", "found bytes 01 02 03 fe"),
    ];
    for (bytes, expected) in rows {
        let text = refusal(bytes);
        assert!(text.starts_with("sample: not an image (") && text.contains(expected), "{text}");
    }
    assert_eq!(refusal(b""), "sample: the file is empty (0 bytes), expected an image");
    // Known to the decoding library, not to us.
    assert!(refusal(b"P6 1 1 255\n\0\0\0").contains("not an image"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.png");
    let error = load_image(&missing, Alpha::Drop).expect_err("missing");
    assert!(matches!(error, MediaError::NotFound { .. }));
    assert_eq!(error.to_string(), format!("{}: no such file", missing.display()));

    let error = load_image(folder.path(), Alpha::Drop).expect_err("a folder");
    assert_eq!(error.to_string(), format!("{}: found a folder, expected a file", folder.path().display()));

    let error = load_image(Path::new("/dev/zero"), Alpha::Drop).expect_err("a device");
    assert_eq!(error.to_string(), "/dev/zero: found a device or pipe, expected a file");
}
