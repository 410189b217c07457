//! What the first bytes say: the format, the claimed size, and for JPEG whether the end is there.
//! Read before any decoder runs, so that nothing is allocated on the word of a header.

use image::ImageFormat;

/// The format that the content's magic number names, if it is one that this crate reads.
pub(super) fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(bytes).ok()?;
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    matches!(format, Bmp | Gif | Jpeg | Png | Tiff | WebP).then_some(format)
}

/// Name of a format in messages.
pub(super) fn label(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => "image",
    }
}

/// What content that is none of our formats looks like.
pub(super) fn describe(bytes: &[u8]) -> String {
    let kinds: [(&[u8], usize, &str); 6] = [
        (b"ftyp", 4, "an MP4, MOV, HEIC or AVIF container"),
        (b"%PDF", 0, "a PDF document"),
        (b"PK\x03\x04", 0, "a ZIP archive"),
        (b"\x1f\x8b", 0, "gzip data"),
        (b"\x7fELF", 0, "a program"),
        (b"\x1a\x45\xdf\xa3", 0, "a Matroska or WebM video"),
    ];
    for (magic, at, kind) in kinds {
        if bytes.get(at..at + magic.len()) == Some(magic) {
            return kind.to_owned();
        }
    }
    let start = &bytes[..bytes.len().min(64)];
    // The cut may have gone through a character.
    let text = std::str::from_utf8(start).or_else(|error| match error.error_len() {
        None => std::str::from_utf8(&start[..error.valid_up_to()]),
        Some(_) => Err(error),
    });
    match text {
        Ok(text) if !text.is_empty() && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            "text".to_owned()
        }
        _ => {
            let hex: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("bytes {}", hex.join(" "))
        }
    }
}

/// Width and height as the header claims them; `None` where the format keeps them deeper or the
/// header is cut, which the decoder will find.
pub(super) fn claimed_size(format: ImageFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    match format {
        // Signature, then the IHDR chunk: length, name, width, height.
        ImageFormat::Png => Some((be32(bytes, 16)?, be32(bytes, 20)?)),
        ImageFormat::Gif => Some((le16(bytes, 6)?.into(), le16(bytes, 8)?.into())),
        ImageFormat::Bmp => match le32(bytes, 14)? {
            12 => Some((le16(bytes, 18)?.into(), le16(bytes, 20)?.into())),
            // Negative heights mean rows from the top.
            _ => Some((le32(bytes, 18)?, le32(bytes, 22)?.cast_signed().unsigned_abs())),
        },
        ImageFormat::Jpeg => {
            Segments::new(bytes).find(|segment| segment.is_frame_header()).and_then(|segment| {
                let height = be16(bytes, segment.payload + 1)?;
                let width = be16(bytes, segment.payload + 3)?;
                Some((width.into(), height.into()))
            })
        }
        _ => None,
    }
}

/// Whether the end-of-image marker of the (first) image is there.
pub(super) fn jpeg_is_complete(bytes: &[u8]) -> bool {
    Segments::new(bytes).any(|segment| segment.marker == Segment::END)
}

/// Whether a WebP file is shorter than its RIFF header says. The byte that pads an odd length is not
/// missed.
pub(super) fn webp_is_cut(bytes: &[u8]) -> bool {
    sniff(bytes) == Some(ImageFormat::WebP)
        && le32(bytes, 4).is_some_and(|length| bytes.len() as u64 + 1 < u64::from(length) + 8)
}

/// A marker segment of a JPEG file (ITU-T T.81, B.1.1).
struct Segment {
    marker: u8,
    /// Where the bytes after the length field begin.
    payload: usize,
}

impl Segment {
    const END: u8 = 0xD9;

    /// SOF0 to SOF15; DHT, JPG and DAC share the range.
    fn is_frame_header(&self) -> bool {
        matches!(self.marker, 0xC0..=0xCF) && !matches!(self.marker, 0xC4 | 0xC8 | 0xCC)
    }
}

/// Walks the markers of a JPEG file and stops where the data does. Thumbnails are payload of their
/// segments and never looked into.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // Behind the start-of-image marker.
        Self { bytes, at: 2 }
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        loop {
            // Anything up to the next 0xFF is the data of a scan, or filling.
            while *self.bytes.get(self.at)? != 0xFF {
                self.at += 1;
            }
            let marker = *self.bytes.get(self.at + 1)?;
            match marker {
                0xFF => self.at += 1,
                // A stuffed zero, TEM, or a restart marker inside of entropy-coded data.
                0x00 | 0x01 | 0xD0..=0xD8 => self.at += 2,
                Segment::END => {
                    self.at = self.bytes.len();
                    return Some(Segment { marker, payload: self.at });
                }
                _ => {
                    let length = usize::from(be16(self.bytes, self.at + 2)?);
                    let payload = self.at + 4;
                    self.at += 2 + length.max(2);
                    return Some(Segment { marker, payload });
                }
            }
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
