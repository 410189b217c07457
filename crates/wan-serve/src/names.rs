//! Names of files as clients send them, checked before anything is opened. The folders themselves cannot be left
//! (see `folders.rs`); these rules say early and clearly what is refused.

use std::path::{Component, Path, PathBuf};

/// Longest name of a file in bytes, as file systems have it.
pub(crate) const MAX_NAME: usize = 255;

/// Longest path below a folder in bytes.
const MAX_PATH: usize = 1024;

/// Whether this is the name of one file: no separators, colons and control characters, not hidden.
pub(crate) fn is_plain(name: &str) -> bool {
    let forbidden = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && !name.contains(forbidden)
}

/// A path below a folder; `.` is skipped and `..` goes up, but never out. `None` for absolute paths, those that lead
/// out, and those with characters that no name has.
pub(crate) fn below(path: &str) -> Option<PathBuf> {
    if path.len() > MAX_PATH || path.contains(|c: char| c == '\\' || c == ':' || c.is_control()) {
        return None;
    }
    let mut below = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) if part.len() <= MAX_NAME => below.push(part),
            Component::CurDir => {}
            Component::ParentDir if below.pop() => {}
            _ => return None,
        }
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_one_component() {
        assert!(["girl.png", "girl (1).png", "女孩.png", "a..b.png"].into_iter().all(is_plain));
        let long = "x".repeat(256);
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "C:x", &long] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn paths_stay_below() {
        assert_eq!(below("a/./b"), Some("a/b".into()));
        assert_eq!(below("sub/.."), Some(PathBuf::new()));
        assert_eq!(below(""), Some(PathBuf::new()));
        for path in ["..", "a/../../b", "/etc", "a\\..\\b", "a\0", "C:/x"] {
            assert_eq!(below(path), None, "{path:?}");
        }
    }
}
