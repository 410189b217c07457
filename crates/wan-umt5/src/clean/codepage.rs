//! The single-byte encodings that UTF-8 text is commonly misread in.

use std::sync::LazyLock;

use encoding_rs::{
    Encoding, ISO_8859_2, MACINTOSH, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252, WINDOWS_1253, WINDOWS_1254,
    WINDOWS_1257,
};

/// Stands for a byte that was lost, in a sloppy encoding.
pub(super) const LOST: u8 = 0x1a;

/// Upper half of the IBM PC's code page 437.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Latin1,
    Windows1252,
    Windows1251,
    Windows1250,
    Windows1253,
    Windows1254,
    Windows1257,
    Iso8859Part2,
    MacRoman,
    Cp437,
}

/// One encoding. ASCII stands for itself in all of them.
pub(super) struct CodePage {
    pub(super) name: Name,
    /// What the bytes 0x80 to 0xff mean; where nothing, the character of that number.
    upper: [char; 128],
    /// Windows encodings: U+FFFD is written as [`LOST`].
    pub(super) sloppy: bool,
}

/// The encodings in the order in which they are tried.
pub(super) static CODE_PAGES: LazyLock<[CodePage; 10]> = LazyLock::new(|| {
    use Name::*;
    let windows = |name, encoding| CodePage { name, upper: upper_half(encoding), sloppy: true };
    let other = |name, upper| CodePage { name, upper, sloppy: false };
    let mut cp437 = CP437.chars();
    [
        other(Latin1, std::array::from_fn(|i| latin1(0x80 + i as u8))),
        windows(Windows1252, WINDOWS_1252),
        windows(Windows1251, WINDOWS_1251),
        windows(Windows1250, WINDOWS_1250),
        windows(Windows1253, WINDOWS_1253),
        windows(Windows1254, WINDOWS_1254),
        windows(Windows1257, WINDOWS_1257),
        other(Iso8859Part2, upper_half(ISO_8859_2)),
        other(MacRoman, upper_half(MACINTOSH)),
        other(Cp437, std::array::from_fn(|_| cp437.next().expect("128 characters"))),
    ]
});

impl CodePage {
    /// The bytes that read as `text` in this encoding; `None` if it lacks a character.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.encode_char(c)).collect()
    }

    fn encode_char(&self, c: char) -> Option<u8> {
        match c {
            '\u{fffd}' if self.sloppy => Some(LOST),
            '\u{1a}' if self.sloppy => None,
            '\0'..='\u{7f}' => Some(c as u8),
            _ => self.upper.iter().position(|&u| u == c).map(|i| 0x80 + i as u8),
        }
    }

    /// The character of a byte.
    pub(super) fn decode(&self, byte: u8) -> char {
        match byte {
            LOST if self.sloppy => '\u{fffd}',
            0..0x80 => byte.into(),
            _ => self.upper[usize::from(byte - 0x80)],
        }
    }
}

pub(super) fn page(name: Name) -> &'static CodePage {
    CODE_PAGES.iter().find(|page| page.name == name).expect("every name has a page")
}

fn upper_half(encoding: &'static Encoding) -> [char; 128] {
    std::array::from_fn(|i| {
        let byte = 0x80 + i as u8;
        let (decoded, _) = encoding.decode_without_bom_handling(std::slice::from_ref(&byte));
        decoded.chars().next().filter(|&c| c != '\u{fffd}').unwrap_or(latin1(byte))
    })
}

fn latin1(byte: u8) -> char {
    byte.into()
}
