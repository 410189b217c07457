//! Taking out of a text what belongs to the user: folders, names, tokens.

use std::path::Path;

/// What is taken out.
pub(super) struct Redaction {
    /// Folders with what stands for them, longer ones first. Whole, because their names may have spaces.
    folders: Vec<(String, &'static str)>,
    secrets: Vec<String>,
}

impl Redaction {
    /// This user's home folder and tokens, and further `folders`.
    pub fn of_this_user(folders: &[(&Path, &'static str)]) -> Self {
        let secret = |name: &str| std::env::var(name).ok().filter(|value| value.len() >= 4);
        let home = std::env::home_dir();
        let all = folders.iter().copied().chain(home.as_deref().map(|home| (home, "~")));
        // A relative folder says nothing, and neither does the root.
        let absolute = all.filter(|(folder, _)| folder.is_absolute() && folder.parent().is_some());
        let mut folders: Vec<_> = absolute
            .map(|(f, name)| (f.display().to_string().trim_end_matches('/').to_string(), name))
            .collect();
        folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
        Self { folders, secrets: ["HF_TOKEN", "WAN_RUN_TOKEN"].into_iter().filter_map(secret).collect() }
    }

    /// `text` with a word for each folder, the last name of every other path alone, and no tokens.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_string();
        for secret in &self.secrets {
            text = text.replace(secret, "<token>");
        }
        // A path ends where a message goes on.
        let ends = |c: char| c.is_whitespace() || "`'\"(),;:=<>[]{}".contains(c);
        for (folder, name) in &self.folders {
            // Not the start of a longer name.
            let whole = |after: &str| after.chars().next().is_none_or(|c| c == '/' || ends(c));
            let mut parts = text.split(folder.as_str()).peekable();
            let mut replaced = parts.next().unwrap_or_default().to_string();
            for part in parts {
                replaced.push_str(if whole(part) { name } else { folder });
                replaced.push_str(part);
            }
            text = replaced;
        }
        let mut clean = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.find(ends).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            clean.push_str(&shortened(word));
            let next = after.chars().next().map_or(0, char::len_utf8);
            clean.push_str(&after[..next]);
            rest = &after[next..];
        }
        clean
    }
}

/// A word without what may be private of it.
fn shortened(word: &str) -> String {
    let (start, path) = match word.strip_prefix('~') {
        Some(path) => ("~/", path),
        None => ("", word),
    };
    match path.trim_end_matches('/').rsplit_once('/') {
        _ if word.starts_with("hf_") => "<token>".into(),
        Some((_, last)) if path.starts_with('/') => format!("{start}…/{last}"),
        _ => word.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_names_and_tokens_are_taken_out() {
        let folders = vec![("/media/alice/my models".into(), "<models>"), ("/home/alice".into(), "~")];
        let redaction = Redaction { folders, secrets: vec!["hunter22".into()] };
        for (text, expected) in [
            ("plain text, 3/4 of it", "plain text, 3/4 of it"),
            ("/home/alice: full", "~: full"),
            ("in /home/alice/models/x.safetensors, not here", "in ~/…/x.safetensors, not here"),
            ("`/media/alice/disk/wan`", "`…/wan`"),
            ("/media/alice/my models/dit/x.gguf: cut off", "<models>…/x.gguf: cut off"),
            ("token hunter22 and hf_AbC123", "token <token> and <token>"),
            ("NAME=/home/alice/a", "NAME=~/…/a"),
        ] {
            let clean = redaction.apply(text);
            assert_eq!(clean, expected);
            assert!(!clean.contains("alice") && !clean.contains("hunter"), "{clean}");
        }
    }
}
