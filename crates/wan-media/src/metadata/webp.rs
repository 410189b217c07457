//! EXIF chunk and loop counter of WebP files (RIFF container, Google's WebP container specification),
//! and the one EXIF field that holds the record.

use super::PREFIX;

/// EXIF tag of the field `ImageDescription`.
const IMAGE_DESCRIPTION: u16 = 0x010E;

/// Bit of the VP8X flags that announces an EXIF chunk.
#[cfg(feature = "ffmpeg")]
const HAS_EXIF: u8 = 0x08;

/// Rewrites a WebP file of `size` (width, height) pixels with `text` as its image description and with
/// its number of plays; `None` where it is not a WebP file.
#[cfg(feature = "ffmpeg")]
pub(super) fn with_record(file: &[u8], size: (u32, u32), text: Option<&str>, plays: u32) -> Option<Vec<u8>> {
    let mut body = b"WEBP".to_vec();
    let mut extended = false;
    for (name, data) in chunks(file)? {
        match &name {
            b"VP8X" => {
                let mut header = data.to_vec();
                *header.first_mut()? |= if text.is_some() { HAS_EXIF } else { 0 };
                extended = true;
                push_chunk(&mut body, b"VP8X", &header);
            }
            b"ANIM" => {
                // Background colour, then the number of plays with 0 for no end.
                let mut header = data.to_vec();
                header.get_mut(4..6)?.copy_from_slice(&u16::try_from(plays).ok()?.to_le_bytes());
                push_chunk(&mut body, b"ANIM", &header);
            }
            b"EXIF" if text.is_some() => {}
            _ => {
                if !extended && text.is_some() {
                    // A single frame comes in the simple layout, which has no room for EXIF.
                    push_chunk(&mut body, b"VP8X", &extended_header(size));
                    extended = true;
                }
                push_chunk(&mut body, &name, data);
            }
        }
    }
    if let Some(text) = text {
        push_chunk(&mut body, b"EXIF", &exif(text));
    }
    let mut out = b"RIFF".to_vec();
    out.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
    out.append(&mut body);
    Some(out)
}

/// The record of a WebP file.
pub(super) fn read(file: &[u8]) -> Option<String> {
    let (_, exif) = chunks(file)?.into_iter().find(|(name, _)| name == b"EXIF")?;
    // Some programs repeat the JPEG marker's preamble.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let text = image_description(exif)?;
    Some(text.strip_prefix(PREFIX)?.to_owned())
}

/// A chunk's name and content.
type Chunk<'a> = ([u8; 4], &'a [u8]);

fn chunks(file: &[u8]) -> Option<Vec<Chunk<'_>>> {
    if file.get(..4)? != b"RIFF" || file.get(8..12)? != b"WEBP" {
        return None;
    }
    let mut found = Vec::new();
    let mut at = 12;
    while let Some(name) = file.get(at..at + 4) {
        let length = u32::from_le_bytes(file.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        found.push((name.try_into().ok()?, file.get(at + 8..at + 8 + length)?));
        // Chunks are padded to even lengths.
        at += 8 + length + length % 2;
    }
    Some(found)
}

#[cfg(feature = "ffmpeg")]
fn push_chunk(body: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    body.extend(name);
    body.extend((data.len() as u32).to_le_bytes());
    body.extend(data);
    if data.len() % 2 == 1 {
        body.push(0);
    }
}

#[cfg(feature = "ffmpeg")]
fn extended_header((width, height): (u32, u32)) -> [u8; 10] {
    let (w, h) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
    [HAS_EXIF, 0, 0, 0, w[0], w[1], w[2], h[0], h[1], h[2]]
}

/// A little-endian TIFF structure with one field of ASCII type (EXIF 2.32, 4.6).
#[cfg(feature = "ffmpeg")]
fn exif(text: &str) -> Vec<u8> {
    const TEXT_AT: u32 = 26;
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    // Four bytes or fewer would live inside of the entry itself.
    value.resize(value.len().max(5), 0);
    let mut out = b"II*\0\x08\0\0\0\x01\0".to_vec();
    out.extend(IMAGE_DESCRIPTION.to_le_bytes());
    out.extend(2u16.to_le_bytes());
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(TEXT_AT.to_le_bytes());
    out.extend([0; 4]);
    out.extend(value);
    out
}

fn image_description(exif: &[u8]) -> Option<&str> {
    let big_endian = match exif.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = exif.get(at..at + 2)?.try_into().ok()?;
        Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let u32_at = |at: usize| {
        let bytes = exif.get(at..at + 4)?.try_into().ok()?;
        Some((if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }) as usize)
    };
    let directory = u32_at(4)?;
    for entry in 0..usize::from(u16_at(directory)?) {
        let at = directory + 2 + entry * 12;
        if u16_at(at)? == IMAGE_DESCRIPTION {
            let value = exif.get(u32_at(at + 8)?..)?.get(..u32_at(at + 4)?)?;
            return std::str::from_utf8(value).ok().map(|text| text.trim_end_matches('\0'));
        }
    }
    None
}
