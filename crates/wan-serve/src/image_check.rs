//! Whether bytes are a picture that can be worked with: the format from the bytes alone, the size from the header
//! before any pixel is decoded, then the whole of it.

use std::io::Cursor;

use axum::http::StatusCode;
use image::{ImageFormat, ImageReader};
use wan_media::{Alpha, MediaError, decode_image};

use crate::reply::ApiError;

/// Largest width and height in pixels.
const MAX_SIDE: u32 = 16_384;

/// Largest area in pixels.
const MAX_PIXELS: u64 = 64_000_000;

const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp];

/// Checks an image. Blocks for as long as decoding takes.
///
/// Errors: 400 `not_an_image`, 413 `image_too_large`.
pub(crate) fn check_image(bytes: &[u8], name: &str) -> Result<(), ApiError> {
    let refused = |reason: String| ApiError::bad_request("not_an_image", reason);
    let format = image::guess_format(bytes).ok();
    if let Some(format) = format.filter(|format| FORMATS.contains(format)) {
        let (width, height) = ImageReader::with_format(Cursor::new(bytes), format)
            .into_dimensions()
            .map_err(|error| refused(format!("{name}: {error}")))?;
        check_size(name, width, height)?;
    } else if let Some(format) = format {
        let found = format.extensions_str().first().copied().unwrap_or("unknown").to_uppercase();
        return Err(refused(format!(
            "{name}: found an image of the format {found}, expected a PNG, JPEG, WebP, GIF or BMP image"
        )));
    }
    decode_image(bytes, name, Alpha::Drop).map(|_| ()).map_err(|error| match error {
        MediaError::NotAnImage { found, .. } => {
            refused(format!("{name}: found {found}, expected a PNG, JPEG, WebP, GIF or BMP image"))
        }
        error => refused(error.to_string()),
    })
}

/// Checks the size that a header claims.
///
/// Errors: 413 `image_too_large`.
pub(crate) fn check_size(name: &str, width: u32, height: u32) -> Result<(), ApiError> {
    if width <= MAX_SIDE && height <= MAX_SIDE && u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    let message = format!(
        "{name}: found {width}x{height} pixels, expected at most {MAX_SIDE} a side and {} megapixels",
        MAX_PIXELS / 1_000_000
    );
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_pass_and_everything_else_does_not() {
        let sample = wan_models::Registry::sample_image();
        assert!(check_image(sample, "a.png").is_ok());
        for bytes in
            [&b""[..], b"hello", b"<svg/>", &sample[..sample.len() / 2], &sample[..20], b"II*\0\0\0\0\0"]
        {
            assert!(check_image(bytes, "a.png").is_err(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn refusals_say_what_is_taken() {
        for (bytes, found) in [
            (&b"hello"[..], "found text"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "found an MP4, MOV, HEIC or AVIF container"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "found an MP4, MOV, HEIC or AVIF container"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "found an image of the format AVIF"),
            (b"II*\0\0\0\0\0", "found an image of the format TIFF"),
        ] {
            let Err(refused) = check_image(bytes, "a.png") else { panic!("{bytes:?} pass") };
            let text = format!("{refused:?}");
            assert!(
                text.contains(found) && text.contains("expected a PNG, JPEG, WebP, GIF or BMP"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_claimed_size_is_checked_before_memory_is_taken() {
        // A header with nothing behind it: whoever decodes it finds another fault.
        let bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x3f\xff\0\0\x3f\xff\x08\x02\0\0\0\x54\xd3\xfd\xfc\0\0\0\0IDAT\x35\xaf\x06\x1e";
        let refused = check_image(bomb, "a.png").expect_err("it is too large");
        assert!(refused.message().contains("found 16383x16383 pixels"), "{refused:?}");
    }
}
