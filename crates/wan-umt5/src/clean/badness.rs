//! Does a text look as if it had been decoded with the wrong encoding?
//!
//! The heuristic of ftfy 6.3 (`ftfy/badness.py`): characters fall into classes, and certain classes
//! next to each other do not occur in sound text. `É` before `£` is one such pair.

use std::sync::LazyLock;

use regex::Regex;

/// What Python's `\w` matches.
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}_]$").expect("a valid pattern"));

/// Classes of characters, as a bit set.
mod class {
    /// Ordinary punctuation that also turns up in mojibake.
    pub const COMMON: u16 = 1;
    /// Control characters of Latin-1.
    pub const C1: u16 = 1 << 1;
    /// Symbols that text seldom holds.
    pub const BAD: u16 = 1 << 2;
    /// Paragraph and section sign.
    pub const LAW: u16 = 1 << 3;
    pub const CURRENCY: u16 = 1 << 4;
    /// Punctuation that starts something.
    pub const START: u16 = 1 << 5;
    /// Punctuation that ends something.
    pub const END: u16 = 1 << 6;
    pub const NUMERIC: u16 = 1 << 7;
    /// Letters that make faces beside box-drawing characters.
    pub const KAOMOJI: u16 = 1 << 8;
    pub const UPPER: u16 = 1 << 9;
    pub const LOWER: u16 = 1 << 10;
    /// Greek and Cyrillic, of which whole words are made.
    pub const UPPER_COMMON: u16 = 1 << 11;
    pub const LOWER_COMMON: u16 = 1 << 12;
    /// Box-drawing characters.
    pub const BOX: u16 = 1 << 13;
}
use class::*;

const ACCENTED: u16 = LOWER | UPPER;

/// Pairs of classes that are bad side by side.
const BAD_PAIRS: [(u16, u16); 10] = [
    (BAD | ACCENTED | BOX | START | END | CURRENCY | NUMERIC | LAW, BAD),
    (BAD, ACCENTED | BOX | START | END | CURRENCY | NUMERIC | LAW),
    (LOWER | LOWER_COMMON | BOX | END | CURRENCY | NUMERIC, UPPER),
    (BOX | END | CURRENCY | NUMERIC, LOWER),
    (LOWER | BOX | END, CURRENCY),
    (UPPER | BOX, NUMERIC | LAW),
    (CURRENCY | NUMERIC | BOX, START),
    (BOX, KAOMOJI),
    (ACCENTED | CURRENCY | NUMERIC | START | END | LAW, BOX),
    (BOX, END),
];

/// Triples of classes that are bad in a row.
const BAD_TRIPLES: [(u16, u16, u16); 2] = [
    (ACCENTED | BOX | CURRENCY | END, START, NUMERIC),
    (ACCENTED | CURRENCY | NUMERIC | BOX | LAW, END, START),
];

/// Whether any sequence in the text is unlikely in sound text.
pub(super) fn is_bad(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let classes: Vec<u16> = chars.iter().map(|&c| classify(c)).collect();
    matches!(chars[..], ['Ã' | 'Â', ' ', ..])
        || (0..chars.len()).any(|i| bad_classes(&classes[i..]) || bad_start(&chars[i..], &classes[i..]))
}

fn bad_classes(classes: &[u16]) -> bool {
    if classes[0] & C1 != 0 {
        return true;
    }
    let pair = |&(a, b): &(u16, u16)| classes[0] & a != 0 && classes[1] & b != 0;
    let triple =
        |&(a, b, c): &(u16, u16, u16)| classes[0] & a != 0 && classes[1] & b != 0 && classes[2] & c != 0;
    classes.len() >= 2 && BAD_PAIRS.iter().any(pair) || classes.len() >= 3 && BAD_TRIPLES.iter().any(triple)
}

/// Bad sequences at the start of `chars` that need more than classes.
fn bad_start(chars: &[char], classes: &[u16]) -> bool {
    let has = |i: usize, class: u16| classes.get(i).is_some_and(|c| c & class != 0);
    match *chars {
        // A letter, a Greek or Cyrillic one, a bad symbol
        [a, _, _, ..] if a.is_ascii_alphabetic() && has(1, UPPER_COMMON | LOWER_COMMON) && has(2, BAD) => {
            true
        }
        [a, _, _, ..] if is_space(a) && has(1, UPPER) && has(2, CURRENCY) => true,
        [a, _, _, ..] if a.is_ascii_lowercase() && has(1, UPPER) && has(2, START | CURRENCY) => true,
        [_, _, c, ..] if has(0, ACCENTED) && has(1, START | END) && is_word(c) => true,
        // The ligature, unless a plain letter follows
        ['Œ' | 'œ', b, ..] if !b.is_ascii_alphabetic() => true,
        [_, '°', ..] if has(0, UPPER) => true,

        // Windows-1252
        ['Â' | 'Ã' | 'Î' | 'Ð', b, ..]
            if "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´".contains(b) || has(1, START | END) =>
        {
            true
        }
        ['×', '²' | '³', ..] => true,
        ['Ø' | 'Ù', b, 'Ø' | 'Ù', d, ..] if in_arabic(b) && in_arabic(d) => true,
        ['à', '²' | 'µ' | '¹' | '¼' | '½' | '¾', ..] => true,
        ['Ã', '\u{a0}' | '¡', ..] => true,
        ['a'..='z', 'Ã' | 'Â', ' ', ..] => true,
        ['a'..='z', b, 'Ã' | 'Â', ' ', ..] if is_space(b) => true,
        [a, 'Â', c, ..]
            if (a.is_ascii_lowercase() || ".,?!".contains(a) || has(0, END))
                && (c == ' ' || has(2, START | END)) =>
        {
            true
        }

        // MacRoman
        ['√', b, ..] if "±∂†≠®™´≤≥¥µø".contains(b) => true,
        ['≈', '°' | '¢', ..] => true,
        ['‚', 'Ä', c, ..] if "ìîïòôúùû†°¢π".contains(c) => true,
        ['‚', 'â' | 'ó', 'à' | 'ä' | '°' | 'ê', ..] => true,

        // Windows-1251
        ['в', 'Ђ', ..] => true,
        ['В' | 'Г' | 'Р' | 'С', b, 'В' | 'Г' | 'Р' | 'С', ..]
            if has(1, C1 | BAD | START | END | CURRENCY) || b == '°' || b == 'µ' =>
        {
            true
        }
        ['Г', 'ў', 'В', 'Ђ', 'В', f, g, ..] if f != '\n' && (g == ' ' || g.is_ascii_alphabetic()) => {
            true
        }

        // Windows-1253
        ['β', '€', '™' | '\u{a0}' | 'Ά' | '\u{ad}' | '®' | '°', ..] => true,
        ['Β' | 'Γ' | 'Ξ' | 'Ο', b, 'Β' | 'Γ' | 'Ξ' | 'Ο', ..]
            if has(1, C1 | BAD | START | END | CURRENCY) || b == '°' =>
        {
            true
        }

        // Windows-1257
        ['ā', '€', ..] => true,
        _ => false,
    }
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_word(c: char) -> bool {
    WORD.is_match(c.encode_utf8(&mut [0; 4]))
}

/// Second characters of Arabic letters read as Windows-1252.
fn in_arabic(c: char) -> bool {
    classify(c) & (COMMON | CURRENCY | BAD | NUMERIC | START) != 0 || "ŸŠ®°µ»".contains(c)
}

/// All classes of a character; no class for most.
fn classify(c: char) -> u16 {
    let class =
        match c {
            '\u{80}'..='\u{9f}' => C1,
            '\u{a0}' | '\u{ad}' | '·' | '´' | '–' | '—' | '―' | '…' | '’' => COMMON,
            '¦' | '¤' | '¨' | '¬' | '¯' | '¸' | 'ƒ' | 'ˆ' | 'ˇ' | '˘' | '˛' | '˜' | '†' | '‡' | '‰' | '⌐'
            | '◊' | '\u{fffd}' | 'ª' | 'º' => BAD,
            '¶' | '§' => LAW,
            '¢' | '£' | '¥' | '₧' | '€' => CURRENCY,
            '¡' | '«' | '¿' | '©' | '\u{384}' | '\u{385}' | '‘' | '‚' | '“' | '„' | '•' | '‹'
            | '\u{f8ff}' => START,
            '®' | '»' | '˝' | '”' | '›' | '™' => END,
            '²' | '³' | '¹' | '±' | '¼' | '½' | '¾' | '×' | 'µ' | '÷' | '⁄' | '∂' | '∆' | '∏' | '∑' | '√'
            | '∞' | '∩' | '∫' | '≈' | '≠' | '≡' | '≤' | '≥' | '№' => NUMERIC,
            'À'..='Ñ' | 'Ø' | 'Ü' | 'Ý' => UPPER,
            'Ă' | 'Ā' | 'Ą' | 'Ć' | 'Č' | 'Ď' | 'Đ' | 'Ę' | 'Ě' | 'Ē' | 'Ė' | 'Ğ' | 'Ģ' | 'İ' | 'Ī' | 'Ķ'
            | 'Ĺ' | 'Ľ' | 'Ł' | 'Ļ' | 'Ń' | 'Ň' | 'Ņ' | 'Œ' | 'Ř' | 'Ś' | 'Ş' | 'Š' | 'Ţ' | 'Ť' | 'Ů'
            | 'Ű' | 'Ÿ' | 'Ź' | 'Ż' | 'Ž' | 'Ґ' => UPPER,
            'ß'..='ñ' | 'ü' => LOWER,
            'ă' | 'ą' | 'ā' | 'ć' | 'č' | 'ď' | 'đ' | 'ę' | 'ě' | 'ē' | 'ė' | 'ğ' | 'ģ' | 'į' | 'ī' | 'ķ'
            | 'ĺ' | 'ľ' | 'ł' | 'ļ' | 'œ' | 'ŕ' | 'ś' | 'ş' | 'š' | 'ť' | 'ź' | 'ż' | 'ž' | 'ґ' | 'ﬁ'
            | 'ﬂ' => LOWER,
            'Þ' | 'Α'..='Ω' | 'Ά' | 'Έ'..='Ί' | 'Ό' | 'Ύ' | 'Ώ' | 'Ϊ' | 'Ϋ' | 'Ё'..='Я' => {
                UPPER_COMMON
            }
            'α'..='ω' | 'ά'..='ΰ' | 'а'..='џ' => LOWER_COMMON,
            '│' | '┌' | '┐' | '┘' | '├' | '┤' | '┬' | '┼' | '═'..='╬' | '▀' | '▄' | '█' | '▌' | '▐'..='▓' => {
                BOX
            }
            _ => 0,
        };
    let kaomoji = matches!(
        c, 'Ò'..='Ö' | 'Ù'..='Ü' | 'ò'..='ö' | 'ø'..='ü' | 'Ő' | 'Ō' | 'Ū' | 'Ų' | '°'
    );
    class | if kaomoji { KAOMOJI } else { 0 }
}
