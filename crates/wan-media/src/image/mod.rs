//! Still images in: JPEG, PNG, WebP, GIF (first frame), BMP and TIFF, recognised by their content.
//!
//! The result is what ComfyUI's `LoadImage` node makes of a file with Pillow: EXIF orientation applied,
//! 8-bit RGB, alpha dropped unless asked otherwise. 16-bit samples are cut to their high byte; Pillow does so
//! for colour, but clips 16-bit grey at 255, which would turn most of such a picture white.

mod header;

use std::fs::{self, File};
use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;

use image::{DynamicImage, GenericImageView, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::{MediaError, Result, one_line};
use crate::frame::RgbImage;

/// Largest accepted width or height in pixels.
pub const MAX_SIDE: u32 = 16_384;

/// Largest accepted area in pixels.
pub const MAX_PIXELS: u64 = 200_000_000;

/// Largest accepted file in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// What becomes of transparent pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpha {
    /// Alpha is discarded and the stored colour stays, as in ComfyUI (Pillow's `convert("RGB")`).
    #[default]
    Drop,
    /// The picture is laid over white.
    White,
    /// The picture is laid over black.
    Black,
}

impl Alpha {
    /// Names accepted by [`Alpha::from_str`](std::str::FromStr).
    pub const NAMES: [&'static str; 3] = ["drop", "white", "black"];

    fn blend(self, [r, g, b, a]: [u8; 4]) -> [u8; 3] {
        let background = match self {
            Self::Drop => return [r, g, b],
            Self::White => 255,
            Self::Black => 0,
        };
        let over = |value: u8| {
            let sum = u32::from(value) * u32::from(a) + background * (255 - u32::from(a));
            ((sum + 127) / 255) as u8
        };
        [over(r), over(g), over(b)]
    }
}

impl std::str::FromStr for Alpha {
    type Err = MediaError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "drop" => Ok(Self::Drop),
            "white" => Ok(Self::White),
            "black" => Ok(Self::Black),
            _ => Err(MediaError::option("alpha", name, Self::NAMES.join(", "))),
        }
    }
}

/// Loads an image file as 8-bit RGB.
///
/// # Errors
/// One line that names the path: missing, not a file, unreadable, empty, not an image, of zero size,
/// above [`MAX_SIDE`] or [`MAX_PIXELS`] (refused from the header, before memory for the pixels is
/// taken), truncated, or broken.
pub fn load_image(path: &Path, alpha: Alpha) -> Result<RgbImage> {
    load_image_and_transparency(path, alpha).map(|(image, _)| image)
}

/// [`load_image`], and whether pixels of the file are transparent, in part at least.
///
/// # Errors
/// As [`load_image`].
pub fn load_image_and_transparency(path: &Path, alpha: Alpha) -> Result<(RgbImage, bool)> {
    // Opening a pipe would wait for a writer: look first.
    let kind = fs::metadata(path).map_err(|error| MediaError::read(path, error))?.file_type();
    if !kind.is_file() {
        let found = if kind.is_dir() { "folder" } else { "device or pipe" };
        return Err(MediaError::NotAFile { path: path.to_path_buf(), found });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| MediaError::read(path, error))?;
    decode(&bytes, &path.display().to_string(), alpha)
}

/// Decodes an image held in memory as 8-bit RGB; `name` stands for it in error messages.
///
/// # Errors
/// As [`load_image`], less those of the file itself.
pub fn decode_image(bytes: &[u8], name: &str, alpha: Alpha) -> Result<RgbImage> {
    decode(bytes, name, alpha).map(|(image, _)| image)
}

fn decode(bytes: &[u8], name: &str, alpha: Alpha) -> Result<(RgbImage, bool)> {
    if bytes.is_empty() {
        return Err(MediaError::Empty { name: name.to_owned() });
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(MediaError::FileTooLarge { name: name.to_owned(), limit: MAX_FILE_BYTES });
    }
    let format = header::sniff(bytes)
        .ok_or_else(|| MediaError::NotAnImage { name: name.to_owned(), found: header::describe(bytes) })?;
    let source = Source { name, bytes, format, label: header::label(format) };
    source.decode(alpha)
}

/// The bytes at hand, with what error messages need.
struct Source<'a> {
    name: &'a str,
    bytes: &'a [u8],
    format: ImageFormat,
    label: &'static str,
}

impl Source<'_> {
    fn decode(&self, alpha: Alpha) -> Result<(RgbImage, bool)> {
        if let Some((width, height)) = header::claimed_size(self.format, self.bytes) {
            self.check_size(width, height)?;
        }
        if self.format == ImageFormat::Jpeg && !header::jpeg_is_complete(self.bytes) {
            // The decoder fills missing parts with grey; a half image must not pass for a whole one.
            return Err(self.truncated());
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        // Four 16-bit samples a pixel, and as much again for the decoder itself.
        limits.max_alloc = Some(MAX_PIXELS * 16);

        let mut reader = ImageReader::with_format(Cursor::new(self.bytes), self.format);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|error| self.error(error))?;
        let (width, height) = decoder.dimensions();
        self.check_size(width, height)?;
        let orientation = decoder.orientation().map_err(|error| self.error(error))?;
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| self.error(error))?;
        picture.apply_orientation(orientation);
        let transparent =
            picture.color().has_alpha() && picture.pixels().any(|(_, _, pixel)| pixel[3] < u8::MAX);
        Ok((to_rgb8(picture, alpha)?, transparent))
    }

    fn check_size(&self, width: u32, height: u32) -> Result<()> {
        let (name, format) = (self.name.to_owned(), self.label);
        if width == 0 || height == 0 {
            return Err(MediaError::ZeroSize { name, format, width, height });
        }
        let pixels = u64::from(width) * u64::from(height);
        if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
            let max_megapixels = MAX_PIXELS / 1_000_000;
            return Err(MediaError::TooLarge {
                name,
                format,
                width,
                height,
                max_side: MAX_SIDE,
                max_megapixels,
            });
        }
        Ok(())
    }

    fn truncated(&self) -> MediaError {
        MediaError::Truncated { name: self.name.to_owned(), format: self.label, bytes: self.bytes.len() }
    }

    fn error(&self, error: ImageError) -> MediaError {
        let reason = match error {
            ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return self.truncated();
            }
            ImageError::IoError(error) => one_line(error),
            error => one_line(error),
        };
        let lower = reason.to_lowercase();
        let cut = ["unexpected eof", "unexpected end", "end of file", "end of input", "fill whole buffer"];
        if cut.iter().any(|hint| lower.contains(hint)) || header::webp_is_cut(self.bytes) {
            return self.truncated();
        }
        MediaError::Decode { name: self.name.to_owned(), format: self.label, reason }
    }
}

/// 8-bit RGB from whatever the decoder produced. 16-bit samples keep their high byte, as Pillow's raw
/// modes do; floats are clipped to `[0, 1]`.
fn to_rgb8(picture: DynamicImage, alpha: Alpha) -> Result<RgbImage> {
    let (width, height) = (picture.width(), picture.height());
    let high = |value: u16| (value >> 8) as u8;
    let data = match picture {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageLuma8(pixels) => pixels.into_raw().into_iter().flat_map(|v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => {
            pixels.pixels().flat_map(|p| alpha.blend([p[0], p[0], p[0], p[1]])).collect()
        }
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().flat_map(|p| alpha.blend(p.0)).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => pixels
            .pixels()
            .flat_map(|p| alpha.blend([high(p[0]), high(p[0]), high(p[0]), high(p[1])]))
            .collect(),
        DynamicImage::ImageRgb16(pixels) => pixels.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().flat_map(|p| alpha.blend(p.0.map(high))).collect()
        }
        other => other.into_rgba8().pixels().flat_map(|p| alpha.blend(p.0)).collect(),
    };
    RgbImage::new(width, height, data)
}
