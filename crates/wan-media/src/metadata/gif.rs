//! Comment extensions of GIF files (GIF89a specification, section 24).

use super::PREFIX;

const EXTENSION: u8 = 0x21;
const COMMENT: u8 = 0xFE;
const IMAGE: u8 = 0x2C;
#[cfg(feature = "ffmpeg")]
const TRAILER: u8 = 0x3B;

/// Adds `text` as a comment at the end of the file; `None` where the file has no trailer.
#[cfg(feature = "ffmpeg")]
pub(super) fn with_comment(mut file: Vec<u8>, text: &str) -> Option<Vec<u8>> {
    file.pop().filter(|&last| last == TRAILER)?;
    file.extend([EXTENSION, COMMENT]);
    for block in text.as_bytes().chunks(255) {
        file.push(block.len() as u8);
        file.extend(block);
    }
    file.extend([0, TRAILER]);
    Some(file)
}

/// The record in the first comment that begins with our prefix.
pub(super) fn read(file: &[u8]) -> Option<String> {
    // Header and logical screen descriptor, then the global colour table.
    let mut at = 13 + color_table(*file.get(10)?);
    loop {
        match *file.get(at)? {
            EXTENSION => {
                let label = *file.get(at + 1)?;
                let (content, next) = sub_blocks(file, at + 2)?;
                if label == COMMENT
                    && let Some(record) = content.strip_prefix(PREFIX.as_bytes())
                {
                    return String::from_utf8(record.to_vec()).ok();
                }
                at = next;
            }
            IMAGE => {
                // Descriptor, local colour table, LZW code size.
                let data = at + 10 + color_table(*file.get(at + 9)?) + 1;
                at = sub_blocks(file, data)?.1;
            }
            _ => return None,
        }
    }
}

/// Bytes of the colour table that the packed field announces.
fn color_table(packed: u8) -> usize {
    if packed & 0x80 != 0 { 3 << ((packed & 7) + 1) } else { 0 }
}

/// The joined content of a chain of sub-blocks and where the next block begins.
fn sub_blocks(file: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    loop {
        let length = usize::from(*file.get(at)?);
        if length == 0 {
            return Some((content, at + 1));
        }
        content.extend_from_slice(file.get(at + 1..at + 1 + length)?);
        at += 1 + length;
    }
}
