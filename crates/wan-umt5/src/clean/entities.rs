//! HTML entities: Python's `html.unescape`, and ftfy's stricter variant of it.

use std::borrow::Cow;
use std::sync::LazyLock;

use htmlize::ENTITIES;
use regex::{Captures, Regex};

/// A character reference as HTML5 tokenizes it; names may lack the semicolon.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\x0c <&#;]{1,32};?)").expect("a valid pattern")
});

/// A reference that cannot be mistaken for anything else.
static COMPLETE_REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"&#?[0-9A-Za-z]{1,24};").expect("a valid pattern"));

/// What the numeric references 0x80 to 0x9f stand for: Windows-1252, with its five gaps kept.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Resolves named and numeric character references, with or without semicolon, once: Python's
/// `html.unescape`, which follows HTML5's rules for text.
pub fn unescape(text: &str) -> Cow<'_, str> {
    REFERENCE.replace_all(text, |found: &Captures| {
        let body = &found[1];
        match body.strip_prefix('#') {
            Some(number) => numeric(number),
            None => named(body),
        }
    })
}

/// Resolves complete references only, and lower-case names written in capitals: the entity step of
/// `ftfy.fix_text`.
pub(super) fn unescape_complete(text: &str) -> String {
    let replace = |found: &Captures| {
        let whole = &found[0];
        if whole.starts_with("&#") {
            // Only if the reference is used up; `&#12ab;` is not one.
            let resolved = unescape(whole);
            return if resolved.contains(';') { whole.to_owned() } else { resolved.into_owned() };
        }
        entity(&whole[1..]).or_else(|| capitals(whole)).unwrap_or_else(|| whole.to_owned())
    };
    COMPLETE_REFERENCE.replace_all(text, replace).into_owned()
}

/// The characters of a name, which is given without `&` and with its semicolon, if it has one.
fn entity(name: &str) -> Option<String> {
    let whole = format!("&{name}");
    let bytes = ENTITIES.get(whole.as_bytes())?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// `&EACUTE;` for `&Eacute;`: allowed where the name in capitals means nothing by itself.
fn capitals(whole: &str) -> Option<String> {
    let name = &whole[1..];
    if name.bytes().any(|b| b.is_ascii_lowercase()) || unescape(whole) != whole {
        return None;
    }
    entity(&name.to_ascii_lowercase()).map(|characters| characters.to_uppercase())
}

fn numeric(reference: &str) -> String {
    let digits = reference.trim_end_matches(';');
    let value = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    // Only digits come here, so a failed conversion means a number too large.
    let value = value.unwrap_or(u32::MAX);
    match value {
        0 => '\u{fffd}'.into(),
        0x0d => '\r'.into(),
        0x80..=0x9f => WINDOWS_1252[(value - 0x80) as usize].into(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if value <= 0x10_ffff && value & 0xfffe == 0xfffe => String::new(),
        // Surrogates and numbers beyond Unicode.
        _ => char::from_u32(value).unwrap_or('\u{fffd}').into(),
    }
}

/// The whole name, else its longest start that is a name (`&ampx` is `&x`), else the text as it was.
fn named(body: &str) -> String {
    if let Some(characters) = entity(body) {
        return characters;
    }
    // A start of one character is never tried; there is no such name.
    for (end, _) in body.char_indices().skip(2).collect::<Vec<_>>().into_iter().rev() {
        if let Some(characters) = entity(&body[..end]) {
            return characters + &body[end..];
        }
    }
    format!("&{body}")
}
