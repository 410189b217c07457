//! Single PNG files: 8-bit RGB, optionally with a text record, replaced atomically.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::atomic::TempFile;
use crate::error::{MediaError, Result, one_line};
use crate::frame::{RgbImage, check_rgb};
use crate::metadata::METADATA_KEY;

/// Writes `picture` to `path`, replacing what is there; the file appears whole or not at all.
///
/// `metadata` is stored as text under the key [`METADATA_KEY`]: a `tEXt` chunk where it is plain ASCII,
/// else an `iTXt` chunk.
///
/// # Errors
/// [`MediaError::MissingFolder`], [`MediaError::NotReplaceable`], [`MediaError::DiskFull`] or
/// [`MediaError::Write`].
pub fn write_png(path: &Path, picture: &RgbImage, metadata: Option<&str>) -> Result<()> {
    let texts: Vec<_> = metadata.map(|text| (METADATA_KEY, text)).into_iter().collect();
    write_png_with_texts(path, picture, &texts)
}

/// As [`write_png`] with any number of texts by keyword, 1 to 79 printable characters of Latin-1.
///
/// # Errors
/// As [`write_png`]; [`MediaError::Encode`] for a keyword that is none.
pub fn write_png_with_texts(path: &Path, picture: &RgbImage, texts: &[(&str, &str)]) -> Result<()> {
    let (temp, file) = TempFile::create(path, true)?;
    encode(file, path, picture.width(), picture.height(), picture.data(), texts)?;
    temp.commit()
}

/// Encodes u8 `[height, width, 3]` into `file`; `shown` stands for it in messages.
pub(crate) fn encode(
    file: File,
    shown: &Path,
    width: u32,
    height: u32,
    rgb: &[u8],
    texts: &[(&str, &str)],
) -> Result<()> {
    check_rgb("picture", width, height, rgb)?;
    let mut sink = BufWriter::new(file);
    let failed = |error: png::EncodingError| match error {
        png::EncodingError::IoError(error) => MediaError::write(shown, error),
        error => {
            MediaError::Encode { path: shown.to_path_buf(), what: "PNG encoding", reason: one_line(error) }
        }
    };
    let mut encoder = png::Encoder::new(&mut sink, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Frames come by the dozen: ten times the speed at about twice the size.
    encoder.set_compression(png::Compression::Fast);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    for (key, text) in texts {
        let (key, text) = ((*key).to_owned(), (*text).to_owned());
        if text.is_ascii() { encoder.add_text_chunk(key, text) } else { encoder.add_itxt_chunk(key, text) }
            .map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    sink.flush().map_err(|error| MediaError::write(shown, error))
}
