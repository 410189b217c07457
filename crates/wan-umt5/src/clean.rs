//! Prompt cleaning as the reference does it before tokenizing.
//!
//! Token ids depend on it: full-width punctuation becomes ASCII, curly quotes become straight, entities
//! become characters, mojibake is repaired. Source: Wan2.1 `wan/modules/tokenizers.py`, `basic_clean`
//! and `whitespace_clean`, and the `ftfy` Python package (6.3), `fix_text` with default options.

mod badness;
mod characters;
mod codepage;
mod entities;
mod mojibake;

pub use entities::unescape as unescape_html;

/// Rounds after which a segment that still changes is taken as it is. Real text settles in two or three.
const MAX_ROUNDS: usize = 64;

/// Longest segment, in characters, that is repaired as one.
const MAX_SEGMENT_CHARS: usize = 1_000_000;

/// The text as the tokenizer gets it: Unicode glitches fixed, HTML entities resolved twice, each run of
/// white space one space, none at the ends. Letter case stays.
///
/// ```
/// use wan_umt5::clean::clean_prompt;
/// assert_eq!(clean_prompt(" 一只猫，  “坐在”\u{3000}窗边&amp;amp;門！ "), "一只猫, \"坐在\" 窗边&門!");
/// ```
pub fn clean_prompt(text: &str) -> String {
    collapse_whitespace(&unescape_html(&unescape_html(&fix_text(text))))
}

/// Repairs mojibake, entities and odd characters, line by line: `ftfy.fix_text`.
///
/// A `<` switches entities off for its line and all later ones, since the text is then taken for HTML.
pub fn fix_text(text: &str) -> String {
    let mut with_entities = true;
    let mut fixed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(MAX_SEGMENT_CHARS).map_or(rest.len(), |(at, _)| at);
            let (segment, later) = rest.split_at(end);
            with_entities &= !segment.contains('<');
            fixed.push_str(&fix_segment(segment, with_entities));
            rest = later;
        }
    }
    fixed
}

fn fix_segment(segment: &str, with_entities: bool) -> String {
    let mut text = segment.to_owned();
    for _ in 0..MAX_ROUNDS {
        let resolved = if with_entities { entities::unescape_complete(&text) } else { text.clone() };
        let fixed = characters::fix(&mojibake::fix(&resolved));
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

/// Every run of white space becomes one space; none is left at the ends.
///
/// White space is what Python takes for it: Unicode's property and U+001C to U+001F.
fn collapse_whitespace(text: &str) -> String {
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "clean/tests.rs"]
mod tests;
