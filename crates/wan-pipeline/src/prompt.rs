//! The prompts that a text stands for.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How a text becomes prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptSyntax {
    /// Parts between `|` are prompts of their own: the command line's.
    #[default]
    Parts,
    /// All of it is one prompt, whatever is in it: `CLIPTextEncode`'s.
    Plain,
    /// Parts between `|`, in which `(text:1.3)` stands for `text` and multiplies the whole part's embeddings:
    /// `WanVideoTextEncode`'s.
    Weighted,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt<'a> {
    /// What is encoded.
    pub text: Cow<'a, str>,
    /// Factor on its embeddings; not finite where the text has a weight that is no number.
    pub weight: f64,
}

impl PromptSyntax {
    /// The prompts of `text`, in order.
    pub fn prompts(self, text: &str) -> Vec<Prompt<'_>> {
        let parts = || text.split('|').map(str::trim);
        match self {
            Self::Plain => vec![plain(text)],
            Self::Parts => parts().map(plain).collect(),
            Self::Weighted => parts().map(weighted).collect(),
        }
    }
}

fn plain(text: &str) -> Prompt<'_> {
    Prompt { text: text.into(), weight: 1.0 }
}

/// Source: ComfyUI-WanVideoWrapper `nodes.py`, `parse_prompt_weights`.
fn weighted(text: &str) -> Prompt<'_> {
    let mut cleaned = Cow::Borrowed(text);
    // Of equal words the last weight counts.
    let mut weights: Vec<(&str, f64)> = Vec::new();
    for (words, number) in marked_words(text) {
        cleaned = cleaned.replace(&format!("({words}:{number})"), words).into();
        let weight = number.parse().unwrap_or(f64::NAN);
        weights.retain(|(other, _)| *other != words);
        weights.push((words, weight));
    }
    Prompt { text: cleaned, weight: weights.iter().map(|(_, weight)| weight).product() }
}

/// The `words` and `number` of each `(words:number)`: from an opening bracket to the next number that closes it on the
/// same line, whatever lies between.
pub(crate) fn marked_words(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for mut line in text.split('\n') {
        // Where one bracket has no such end, none behind it has.
        while let Some((words, number, rest)) = line.split_once('(').and_then(|(_, rest)| up_to_number(rest))
        {
            found.push((words, number));
            line = rest;
        }
    }
    found
}

/// `words:number)rest`, cut.
fn up_to_number(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices(':').find_map(|(colon, _)| {
        let after = &text[colon + 1..];
        let (number, rest) = after.split_at(after.find(|c: char| c != '.' && !c.is_ascii_digit())?);
        let rest = rest.strip_prefix(')').filter(|_| !number.is_empty())?;
        Some((&text[..colon], number, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_syntax_reads_the_same_text_differently() {
        let text = " a (cat:1.5) | (b:2) and (c:0.5)";
        let of = |syntax: PromptSyntax| {
            let prompts = syntax.prompts(text).into_iter();
            prompts.map(|p| (p.text.into_owned(), p.weight)).collect::<Vec<_>>()
        };
        let owned =
            |prompts: &[(&str, f64)]| prompts.iter().map(|(t, w)| (t.to_string(), *w)).collect::<Vec<_>>();
        assert_eq!(of(PromptSyntax::Plain), owned(&[(text, 1.0)]));
        assert_eq!(of(PromptSyntax::Parts), owned(&[("a (cat:1.5)", 1.0), ("(b:2) and (c:0.5)", 1.0)]));
        assert_eq!(of(PromptSyntax::Weighted), owned(&[("a cat", 1.5), ("b and c", 1.0)]));
    }

    #[test]
    fn weights_are_found_as_the_wrapper_finds_them() {
        // What Python's `re.findall(r'\((.*?):([\d\.]+)\)', text)` and the replacements give.
        for (text, cleaned, weight) in [
            ("", "", 1.0),
            ("a (b) c: 3)", "a (b) c: 3)", 1.0),
            ("(b:) (c:1.2x) (d:-1)", "(b:) (c:1.2x) (d:-1)", 1.0),
            ("((a:1.2))", "(a)", 1.2),
            ("(at 10:30, (night:2)", "at 10:30, (night", 2.0),
            ("(a\n:2) (b:.5)", "(a\n:2) b", 0.5),
            ("(a:2) and (a:3)", "a and a", 3.0),
            ("(:2)x", "x", 2.0),
            ("(猫:1.)", "猫", 1.0),
        ] {
            let prompt = weighted(text);
            assert_eq!((&*prompt.text, prompt.weight), (cleaned, weight), "{text}");
        }
        assert!(weighted("(a:1.2.3)").weight.is_nan());
    }
}
