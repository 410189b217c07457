//! docs/troubleshooting.md against the program: what it lists can be printed, and what can be printed is in it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support::{Sandbox, repo_path, stderr};

/// Crates whose errors reach the command line. The server has its own answers.
const CRATES: [&str; 11] = [
    "wan-core",
    "wan-media",
    "wan-models",
    "wan-pipeline",
    "wan-sampler",
    "wan-umt5",
    "wan-workflow",
    "wan-clip",
    "wan-vae",
    "wan-dit",
    "wan-run",
];

/// What stands before an error's text in the sources.
const MARKS: [&str; 3] = ["#[error(", "Failure::usage(", "Failure::run("];

/// A message as its fixed parts, in order.
#[derive(Debug, Clone, PartialEq)]
struct Pattern {
    text: String,
    parts: Vec<String>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let parts = text.split('…').map(str::to_string).filter(|part| !part.is_empty()).collect();
        Self { text: text.into(), parts }
    }

    /// Whether the parts are in `message`, in order.
    fn is_in(&self, message: &str) -> bool {
        let mut rest = message;
        self.parts.iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    }

    /// Letters in the fixed parts.
    fn letters(&self) -> usize {
        self.parts.iter().flat_map(|part| part.chars()).filter(|c| c.is_alphanumeric()).count()
    }

    /// Whether this says what `template` says, and not just something that would fit everything.
    fn covers(&self, template: &Pattern) -> bool {
        self.is_in(&template.text) && 2 * self.letters() >= template.letters()
    }
}

/// The first column of all tables.
static TABLE: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let page = std::fs::read_to_string(repo_path("docs/troubleshooting.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let cell = line.strip_prefix("| `")?;
        // Code in code: the cell ends where the next one begins.
        Some(Pattern::new(cell.split("` | ").next()?))
    });
    rows.collect()
});

/// Asserts that a line which the program printed is in the table.
pub fn assert_covered(line: &str) {
    let message = line.strip_prefix("wan-run: ").unwrap_or(line);
    assert!(TABLE.iter().any(|row| row.is_in(message)), "not in docs/troubleshooting.md: {message}");
}

/// String literals of Rust, escapes resolved, with the place where each begins.
fn literals(source: &str) -> Vec<(usize, String)> {
    let bytes = source.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += source[at..].find('\n').unwrap_or(source.len() - at);
            }
            // A character, as against a lifetime.
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => {
                at += 2 + source[at + 2..].find('\'').unwrap_or(0) + 1
            }
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at += 3,
            b'"' => {
                let begin = at;
                let mut text = String::new();
                at += 1;
                while let Some(c) = source[at..].chars().next() {
                    at += c.len_utf8();
                    match c {
                        '"' => break,
                        '\\' => {
                            let next = source[at..].chars().next().unwrap_or(' ');
                            at += next.len_utf8();
                            match next {
                                '\n' => at += source[at..].len() - source[at..].trim_start().len(),
                                'n' => text.push('\n'),
                                other => text.push(other),
                            }
                        }
                        other => text.push(other),
                    }
                }
                found.push((begin, text));
            }
            _ => at += 1,
        }
    }
    found
}

/// A format string with `…` for its arguments.
fn template(format: &str) -> Pattern {
    let (mut text, mut inside) = (String::new(), false);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                text.push(c);
            }
            '{' => inside = true,
            '}' => {
                inside = false;
                text.push('…');
            }
            other if !inside => text.push(other),
            _ => {}
        }
    }
    Pattern::new(&text)
}

/// Sources of a crate without their tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let end = text.find("#[cfg(test)]").unwrap_or(text.len());
            all.push((path, text[..end].to_string()));
        }
    }
    all
}

fn sources_of(crates: &[&str]) -> Vec<(PathBuf, String)> {
    crates.iter().flat_map(|name| sources(&repo_path("crates").join(name).join("src"))).collect()
}

#[test]
fn every_message_that_can_be_printed_is_in_the_table() {
    let mut errors = 0;
    for (path, text) in sources_of(&CRATES) {
        let literals = literals(&text);
        for (at, mark) in MARKS.iter().flat_map(|mark| text.match_indices(mark)) {
            let begin = at + mark.len();
            // The text is the call's first argument, or that of `format!` in it.
            let start = &text[begin..];
            let spaces = |s: &str| s.len() - s.trim_start().len();
            let mut offset = spaces(start);
            if let Some(rest) = start[offset..].strip_prefix("format!(") {
                offset += "format!(".len() + spaces(rest);
            }
            let Some((_, literal)) = literals.iter().find(|(place, _)| *place == begin + offset) else {
                continue;
            };
            errors += 1;
            let template = template(literal);
            let listed = TABLE.iter().any(|row| row.covers(&template));
            // Nothing but arguments: what they are is listed where they are made.
            assert!(
                listed || template.letters() == 0,
                "{}: not in docs/troubleshooting.md: {}",
                path.display(),
                template.text
            );
        }
    }
    assert!(errors > 90, "found {errors} errors in the sources");
}

/// What the parser of the command line says is its library's; here it says it.
#[test]
fn every_message_of_the_table_can_be_printed() {
    let crates = [&CRATES[..], &["wan-checkpoint", "wan-queue", "wan-serve"]].concat();
    let templates: Vec<Pattern> = sources_of(&crates)
        .iter()
        .flat_map(|(_, text)| literals(text))
        .map(|(_, text)| template(&text))
        .collect();
    let sandbox = Sandbox::new();
    let mut printed: Vec<String> = [
        &["--scheduler", "x", "--model", "tiny"][..],
        &["--steps", "x"],
        &["--seed", "-1"],
        &["--stepz"],
        &["--count", "2", "--batch", "x"],
        &["--segments", "2"],
        &["--model", "tiny", "--from-latents", "absent"],
    ]
    .iter()
    .map(|args| stderr(&sandbox.run(args)))
    .collect();
    // Lists of names, put together where they are printed.
    crate::files::altered(&sandbox, "dit.safetensors", |tensors| {
        let bias = tensors.remove("blocks.1.ffn.0.bias").unwrap();
        tensors.insert("blocks.0.lora".into(), bias);
        let shape = &mut tensors.get_mut("blocks.0.ffn.0.bias").unwrap().1;
        *shape = vec![2, shape[0] / 2];
    });
    printed.push(stderr(&crate::files::run_altered(&sandbox)));
    assert!(TABLE.len() > 90, "{}", TABLE.len());
    for row in TABLE.iter() {
        let made = templates.iter().any(|template| row.is_in(&template.text));
        let said = printed.iter().any(|line| row.is_in(line));
        assert!(made || said, "nothing prints this: {}", row.text);
    }
}

#[test]
fn patterns_mean_something() {
    let general = Pattern::new("…: found …, expected …");
    let special = Pattern::new("…: found no lines, expected a JSON object on each");
    assert!(general.is_in("steps: found 0, expected at least 1") && !general.is_in("found it"));
    assert!(general.covers(&template("{field}: found {found}, expected {expected}")));
    assert!(!general.covers(&special), "a row that fits everything covers nothing");
    assert_eq!(template("{{a}} {}: {b:?}").text, "{a} …: …");
    let source = "let a = '\"'; // \"no\"\nlet b = f::<'a>(\"one \\\n   two\");";
    assert_eq!(literals(source).into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["one two"]);
}
