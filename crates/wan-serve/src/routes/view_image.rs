//! Images that `/view` makes anew: previews, and single channels.

use std::fs::File;
use std::io::{Cursor, Read};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, ImageReader, Rgba};

use crate::body::IMAGE_LIMIT;
use crate::image_check::check_size;
use crate::reply::ApiError;

/// Quality of a JPEG where none is named.
const QUALITY: u8 = 90;

/// What becomes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// JPEG of this quality, 1 to 100.
    Jpeg(u8),
    /// WebP, lossless.
    Webp,
    /// PNG without alpha.
    Colour,
    /// Black PNG with the image's alpha.
    Alpha,
}

impl Conversion {
    /// From the parameters `preview` (`FORMAT[;QUALITY]`; formats that are unknown mean WebP) and `channel`.
    pub fn parse(preview: Option<&str>, channel: Option<&str>) -> Option<Self> {
        if let Some(preview) = preview {
            let (format, quality) = preview.split_once(';').unwrap_or((preview, ""));
            let quality = quality.parse().map_or(QUALITY, |quality: u64| quality.clamp(1, 100) as u8);
            return Some(if format == "jpeg" { Self::Jpeg(quality) } else { Self::Webp });
        }
        match channel {
            Some("rgb") => Some(Self::Colour),
            Some("a") => Some(Self::Alpha),
            _ => None,
        }
    }
}

/// Reads an image and writes it anew. Blocks for as long as decoding takes.
///
/// Errors: 413 for a file or an area that is too large, 415 for what is no image.
pub(crate) fn convert(file: File, name: &str, conversion: Conversion) -> Result<Response, ApiError> {
    let unsupported = |reason: String| {
        let message =
            format!("{name}: found no image that can be shown, expected PNG, JPEG, WebP, GIF or BMP");
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_an_image", message).details(reason)
    };
    let mut bytes = Vec::new();
    file.take(IMAGE_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > IMAGE_LIMIT {
        return Err(ApiError::too_large(IMAGE_LIMIT));
    }
    let reader = || ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let (width, height) = reader()?.into_dimensions().map_err(|error| unsupported(error.to_string()))?;
    check_size(name, width, height)?;
    let picture = reader()?.decode().map_err(|error| unsupported(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut out = Cursor::new(&mut bytes);
    let (mime, written) = match conversion {
        Conversion::Jpeg(quality) => {
            let encoder = JpegEncoder::new_with_quality(&mut out, quality);
            ("image/jpeg", picture.to_rgb8().write_with_encoder(encoder))
        }
        Conversion::Webp => ("image/webp", picture.to_rgba8().write_to(&mut out, ImageFormat::WebP)),
        Conversion::Colour => ("image/png", picture.to_rgb8().write_to(&mut out, ImageFormat::Png)),
        Conversion::Alpha => ("image/png", alpha_only(&picture).write_to(&mut out, ImageFormat::Png)),
    };
    written.map_err(ApiError::internal)?;
    let disposition =
        HeaderValue::from_bytes(format!("filename=\"{}\"", name.replace('"', "\\\"")).as_bytes());
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(mime))], bytes).into_response();
    if let Ok(disposition) = disposition {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

fn alpha_only(picture: &DynamicImage) -> image::RgbaImage {
    let mut pixels = picture.to_rgba8();
    for pixel in pixels.pixels_mut() {
        *pixel = Rgba([0, 0, 0, pixel[3]]);
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_comfyui_reads_them() {
        assert_eq!(Conversion::parse(Some("jpeg;50"), Some("a")), Some(Conversion::Jpeg(50)));
        assert_eq!(Conversion::parse(Some("jpeg;0"), None), Some(Conversion::Jpeg(1)));
        assert_eq!(Conversion::parse(Some("jpeg;999"), None), Some(Conversion::Jpeg(100)));
        assert_eq!(Conversion::parse(Some("jpeg;x"), None), Some(Conversion::Jpeg(QUALITY)));
        assert_eq!(Conversion::parse(Some("tiff"), None), Some(Conversion::Webp));
        assert_eq!(Conversion::parse(None, Some("rgba")), None);
        assert_eq!(Conversion::parse(None, Some("rgb")), Some(Conversion::Colour));
    }
}
