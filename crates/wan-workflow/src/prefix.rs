//! The start of output names: `filename_prefix`, as ComfyUI's `folder_paths.get_save_image_path` reads it.

use jiff::civil::DateTime;

/// A checked prefix: below the output folder whatever its tokens become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilenamePrefix(String);

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected {expected}")]
pub struct PrefixError {
    found: String,
    expected: &'static str,
}

/// Longest part of a path, in bytes, that leaves room for number, extension and temporary names.
const MAX_PART: usize = 180;
/// Longest prefix in bytes.
const MAX_PREFIX: usize = 512;

impl FilenamePrefix {
    /// Reads a prefix; one without text is `default`. `a/../y` becomes `y`.
    ///
    /// Errors: one that leads out of the output folder, is absolute, or longer than file names may be.
    pub fn parse(text: &str, default: &str) -> Result<Self, PrefixError> {
        let error = |expected| Err(PrefixError { found: text.chars().take(80).collect(), expected });
        let text_or = if text.trim().is_empty() { default } else { text };
        if text_or.contains('\0') || text_or.len() > MAX_PREFIX {
            return error("at most 512 bytes of text");
        }
        let text_or = text_or.replace('\\', "/");
        if text_or.starts_with('/') || text_or.as_bytes().get(1) == Some(&b':') {
            return error("a name relative to the output folder");
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text_or.split('/') {
            match part.trim() {
                "" | "." => {}
                ".." if parts.pop().is_none() => return error("a name below the output folder"),
                ".." => {}
                part if part.len() > MAX_PART => return error("parts of at most 180 bytes"),
                part => parts.push(part),
            }
        }
        if text_or.ends_with('/') || parts.is_empty() {
            parts.push(default.rsplit('/').next().unwrap_or(default));
        }
        Ok(Self(parts.join("/")))
    }

    /// The prefix as written, with its tokens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix with its tokens replaced and its parts made of letters, digits, `.`, `-`, `_` and spaces: relative,
    /// without `..`, safe on every file system.
    ///
    /// `%year%`, `%month%`, `%day%`, `%hour%`, `%minute%`, `%second%` and `%date:FORMAT%` (d, M, h, m, s, y, as
    /// ComfyUI's front end) become parts of `time`, `%width%` and `%height%` those of `size` in pixels.
    pub fn expand(&self, time: DateTime, size: (u32, u32)) -> String {
        let mut expanded = self.0.clone();
        for (token, number) in [
            ("%month%", time.month()),
            ("%day%", time.day()),
            ("%hour%", time.hour()),
            ("%minute%", time.minute()),
            ("%second%", time.second()),
        ] {
            expanded = expanded.replace(token, &format!("{number:02}"));
        }
        expanded = expanded.replace("%year%", &time.year().to_string());
        expanded = expanded.replace("%width%", &size.0.to_string()).replace("%height%", &size.1.to_string());
        expanded = replace_dates(&expanded, time);
        let parts: Vec<String> = expanded.split('/').map(safe_part).collect();
        parts.join("/")
    }
}

/// Replaces each `%date:FORMAT%`.
fn replace_dates(text: &str, time: DateTime) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%date") {
        let format = after.strip_prefix('%').map(|tail| ("yyyyMMddhhmmss", tail));
        let format = format.or_else(|| after.strip_prefix(':')?.split_once('%'));
        replaced.push_str(before);
        match format {
            Some((format, tail)) => {
                replaced.push_str(&date(format, time));
                rest = tail;
            }
            None => {
                replaced.push_str("%date");
                rest = after;
            }
        }
    }
    replaced + rest
}

/// Runs of d, M, h, m, s and y become numbers of that many digits.
fn date(format: &str, time: DateTime) -> String {
    let chars: Vec<char> = format.chars().collect();
    let same = |a: &char, b: &char| a == b;
    let runs = chars.chunk_by(same).map(|run| {
        let digits = run.len();
        let number = match run[0] {
            'd' => time.day().into(),
            'M' => time.month().into(),
            'h' => time.hour().into(),
            'm' => time.minute().into(),
            's' => time.second().into(),
            'y' if digits <= 2 => time.year() % 100,
            'y' => time.year(),
            _ => return run.iter().collect::<String>(),
        };
        format!("{number:0digits$}", digits = digits.min(4))
    });
    runs.collect()
}

/// A part of a path without characters that mean something to file systems, shells or addresses.
fn safe_part(part: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "._- ".contains(c) { c } else { '_' };
    let mut safe: String = part.trim().chars().map(keep).collect();
    // Tokens may become longer than they are.
    safe.truncate(safe.floor_char_boundary(MAX_PART));
    // Neither a hidden file nor a step to another folder.
    match safe.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if safe.is_empty() => "_".into(),
        None => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> String {
        let time = jiff::civil::date(2026, 3, 4).at(5, 6, 7, 0);
        FilenamePrefix::parse(text, "ComfyUI").unwrap().expand(time, (640, 400))
    }

    #[test]
    fn tokens_become_parts_of_safe_names() {
        for (text, expected) in [
            ("WanVideo2_1", "WanVideo2_1"),
            ("vid/x", "vid/x"),
            ("a/../y", "y"),
            ("", "ComfyUI"),
            ("vid/", "vid/ComfyUI"),
            ("a\\b", "a/b"),
            ("%year%-%month%-%day%/%hour%%minute%%second%", "2026-03-04/050607"),
            ("%date:yyyy-MM-dd%_%date:yy_h%", "2026-03-04_26_5"),
            ("%date%", "20260304050607"),
            ("%date:open", "_date_open"),
            ("%width%x%height%", "640x400"),
            ("a&b#c%d+e", "a_b_c_d_e"),
            (".hidden/x", "_hidden/x"),
            ("%date:../..%x", "_./_.x"),
            ("图像", "图像"),
        ] {
            let expanded = expand(text);
            assert_eq!(expanded, expected, "{text}");
        }
    }

    #[test]
    fn what_tokens_become_is_cut_to_what_file_systems_take() {
        let expanded = expand(&format!("{}/{}", "%date%".repeat(25), "é%date%".repeat(20)));
        let lengths: Vec<usize> = expanded.split('/').map(str::len).collect();
        assert_eq!(lengths, [MAX_PART, MAX_PART], "{expanded}");
    }

    #[test]
    fn prefixes_stay_below_the_output_folder() {
        for text in ["../x", "a/../../x", "/x", "c:\\x", "\\x", "a\0", &"x".repeat(600), &"y".repeat(200)] {
            let error = FilenamePrefix::parse(text, "ComfyUI").unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
