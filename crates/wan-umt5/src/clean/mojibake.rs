//! Repair of UTF-8 text that was read in a single-byte encoding: `ftfy.fix_encoding`.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::badness::is_bad;
use super::codepage::{CODE_PAGES, CodePage, Name, page};

/// Repairs after which a text that still changes is taken as it is.
const MAX_REPAIRS: usize = 64;

/// Sequences that would be UTF-8 if their space were a no-break space, byte 0xa0.
static ALTERED_UTF8: LazyLock<Regex> = LazyLock::new(|| {
    let inner = r"[\x80-\x84\x86-\x9f\xa1-\xbf]";
    let any = r"[\x80-\xbf]";
    bytes_regex(&format!(
        r"[\xc2\xc3\xc5\xce\xd0\xd9] |[\xe2\xe3] {inner}|[\xe0-\xe3]{inner} |\xf0 {any}{any}|\xf0{any} {any}|\xf0{any}{any} "
    ))
});

/// UTF-8 sequences some of whose bytes were lost; a question mark may stand for one of them.
static LOSSY_UTF8: LazyLock<Regex> = LazyLock::new(|| {
    let lost = r"[\x1a?]";
    let tail = r"[\x1a\x80-\xbf]";
    let tail_or_mark = r"[\x1a?\x80-\xbf]";
    bytes_regex(
        &[
            r"[\xc2-\xdf]\x1a".into(),
            r"[\xc2-\xc3]\?".into(),
            format!(r"\xed[\xa0-\xaf]{lost}\xed[\xb0-\xbf]{tail_or_mark}"),
            format!(r"\xed[\xa0-\xaf]{tail_or_mark}\xed[\xb0-\xbf]{lost}"),
            format!(r"[\xe0-\xef](?:{lost}{tail}|{tail}{lost})"),
            format!(r"[\xf0-\xf4](?:{lost}{tail}{tail}|{tail}{lost}{tail}|{tail}{tail}{lost})"),
            r"\x1a".into(),
        ]
        .join("|"),
    )
});

/// Characters that UTF-8 bytes turn into, by their place in a sequence.
struct Clues {
    first_of_2: HashSet<char>,
    first_of_3: HashSet<char>,
    first_of_4: HashSet<char>,
    continuation: HashSet<char>,
    /// Without punctuation that sound text has before a letter.
    continuation_strict: HashSet<char>,
}

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    use Name::*;
    let western = [Latin1, Windows1250, Windows1251, Windows1253, Windows1254, Windows1257];
    let set = |names: &[Name], bytes: &[u8]| -> HashSet<char> {
        names.iter().flat_map(|&name| bytes.iter().map(move |&byte| page(name).decode(byte))).collect()
    };
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let without_1254 = [Latin1, Windows1250, Windows1251, Windows1253, Windows1257];
    let continuation_pages = [Latin1, Windows1250, Windows1251, Windows1252, Windows1253, Windows1257];
    let mut continuation = set(&continuation_pages, &range(0x80, 0xbf));
    let mut continuation_strict = continuation.clone();
    continuation.insert(' ');
    continuation_strict.retain(|&c| !"–—―‘’‚“”„•…".contains(c));
    Clues {
        first_of_2: set(&western, &range(0xc2, 0xdf)),
        first_of_3: set(&without_1254, &range(0xe0, 0xef)),
        first_of_4: set(&western, &[0xf0, 0xf3]),
        continuation,
        continuation_strict,
    }
});

/// Repairs a segment of text, repeatedly where it was misread more than once; then what is left of
/// Latin-1's control characters becomes Windows-1252.
pub(super) fn fix(text: &str) -> String {
    fix_c1_controls(&fix_encoding(text))
}

fn fix_encoding(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_REPAIRS {
        match repair_once(&text) {
            Some(repaired) if repaired != text => text = repaired,
            _ => break,
        }
    }
    text
}

/// One step back; `None` where the text looks sound or nothing helps.
fn repair_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    if let Some(decoded) = CODE_PAGES.iter().find_map(|page| reread(page, text)) {
        return Some(decoded);
    }
    let patched = decode_inconsistent(text);
    if patched != text {
        return Some(patched);
    }
    // Nothing but stray control characters may be left: Latin-1 that was meant to be Windows-1252.
    Some(fix_c1_controls(text))
}

/// The text's bytes in the encoding, read as UTF-8 instead.
fn reread(page: &CodePage, text: &str) -> Option<String> {
    let mut bytes = page.encode(text)?;
    // In MacRoman the pattern would match an en dash and a space.
    if page.name != Name::MacRoman && ALTERED_UTF8.is_match(&bytes) {
        bytes = restore_byte_a0(&bytes);
    }
    if page.sloppy {
        bytes = LOSSY_UTF8.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
    }
    decode_utf8_variants(&bytes)
}

/// Puts back no-break spaces that were turned into spaces.
fn restore_byte_a0(bytes: &[u8]) -> Vec<u8> {
    // A lone `Ã` is most likely the word `à`, which keeps its space, except in Portuguese words.
    const JOINED: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut spaced = Vec::with_capacity(bytes.len() + 1);
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        spaced.push(*byte);
        rest = tail;
        if *byte == 0xc3
            && let Some(after) = tail.strip_prefix(b" ")
            && !JOINED.iter().any(|word| after.starts_with(word))
        {
            spaced.extend([0xa0, b' ']);
            rest = after;
        }
    }
    ALTERED_UTF8
        .replace_all(&spaced, |found: &Captures| {
            found[0].iter().map(|&b| if b == b' ' { 0xa0 } else { b }).collect::<Vec<u8>>()
        })
        .into_owned()
}

/// UTF-8, with characters beyond U+FFFF also as surrogate pairs (CESU-8) and U+0000 also as two bytes.
fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return Some(text);
            }
            Err(error) => {
                let (valid, special) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).ok()?);
                rest = match *special {
                    [0xc0, 0x80, ..] => {
                        text.push('\0');
                        &special[2..]
                    }
                    [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                        let high = u32::from(a & 0x0f) << 16 | u32::from(b & 0x3f) << 10;
                        let low = u32::from(c & 0x0f) << 6 | u32::from(d & 0x3f);
                        text.push(char::from_u32((high | low) + 0x1_0000)?);
                        &special[6..]
                    }
                    _ => return None,
                };
            }
        }
    }
}

/// Repairs each run of UTF-8-like characters by itself, where the text mixes encodings.
fn decode_inconsistent(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        // Not in the middle of a garble, where it would make things worse.
        let inside = at > 0 && CLUES.continuation_strict.contains(&chars[at - 1]);
        let end = if inside { at } else { at + clue_run(&chars[at..]) };
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        let run: String = chars[at..end].iter().collect();
        // Only if shorter than the text, or this would not end.
        let repair = end - at < chars.len() && is_bad(&run);
        out.push_str(&if repair { fix_encoding(&run) } else { run });
        at = end;
    }
    out
}

/// Number of characters at the start that look like whole UTF-8 sequences.
fn clue_run(chars: &[char]) -> usize {
    let sequence = |chars: &[char], first: &HashSet<char>, tail: usize| {
        chars.len() > tail
            && first.contains(&chars[0])
            && chars[1..=tail].iter().all(|c| CLUES.continuation.contains(c))
    };
    let mut length = 0;
    while length < chars.len() {
        let rest = &chars[length..];
        length += match () {
            _ if sequence(rest, &CLUES.first_of_2, 1) => 2,
            _ if sequence(rest, &CLUES.first_of_3, 2) => 3,
            _ if sequence(rest, &CLUES.first_of_4, 3) => 4,
            _ => break,
        };
    }
    length
}

/// Latin-1's control characters as Windows-1252, the way browsers read them.
fn fix_c1_controls(text: &str) -> String {
    let windows = page(Name::Windows1252);
    let fix = |c| if ('\u{80}'..='\u{9f}').contains(&c) { windows.decode(c as u8) } else { c };
    text.chars().map(fix).collect()
}

fn bytes_regex(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).expect("a valid pattern")
}
