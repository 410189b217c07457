//! Choices that took time to make, kept in a file for the next process on the same machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// First line of every file: what it is, and the version of its form.
const TITLE: &str = "wan-run matrix products 1";

/// Words of one choice: cublasLt's algorithms are as opaque as that.
pub type Words = [u64; 8];

/// Why a file of choices is not used.
#[derive(Debug, thiserror::Error)]
pub enum ChoicesError {
    /// It is there and cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not such a file, or one for something else.
    #[error("{}: found {found}, expected {expected}: it is ignored and written anew", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
}

/// The choices for one machine. Without a folder they last as long as this does.
#[derive(Debug, Default)]
pub struct Choices {
    file: Option<PathBuf>,
    machine: String,
    known: BTreeMap<String, Words>,
}

impl Choices {
    /// None yet, for `machine`: everything that a choice depends on, in words.
    pub fn new(machine: String) -> Self {
        Self { machine, ..Self::default() }
    }

    /// Reads the machine's file in `folder`, if there is one, and keeps later choices there.
    ///
    /// Errors: [`ChoicesError`] for a file that cannot be used; there are then no choices, and the next one replaces it.
    pub fn keep(&mut self, folder: &Path) -> Result<(), ChoicesError> {
        let path = folder.join(file_name(&self.machine));
        self.file = Some(path.clone());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(ChoicesError::Io { path, source }),
        };
        match self.parse(&text) {
            Ok(known) => {
                self.known.extend(known);
                Ok(())
            }
            Err((found, expected)) => Err(ChoicesError::Foreign { path, found, expected }),
        }
    }

    /// What was chosen for `key`.
    pub fn get(&self, key: &str) -> Option<&Words> {
        self.known.get(key)
    }

    /// Remembers a choice, and writes the file anew: whole, or not at all. `key` is one line without tabs.
    ///
    /// Errors: of writing. The choice is remembered all the same.
    pub fn insert(&mut self, key: String, words: Words) -> io::Result<()> {
        debug_assert!(!key.contains(['\t', '\n']), "{key:?}");
        self.known.insert(key, words);
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
        let written = self.write(&unfinished).and_then(|()| fs::rename(&unfinished, file));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished); // it may not be there
        }
        written
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("{TITLE}\n{}\n", self.machine);
        for (key, words) in &self.known {
            let words: Vec<String> = words.iter().map(|word| format!("{word:016x}")).collect();
            text.push_str(&format!("{key}\t{}\n", words.join(" ")));
        }
        let mut file = fs::File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// What a file holds, or what was found and expected in it.
    fn parse(&self, text: &str) -> Result<BTreeMap<String, Words>, (String, String)> {
        let mut lines = text.lines();
        for expected in [TITLE, &self.machine] {
            let found = lines.next().unwrap_or_default();
            if found != expected {
                return Err((format!("`{found}`"), format!("`{expected}`")));
            }
        }
        let choice = |(number, line)| {
            parse_line(line)
                .ok_or_else(|| (format!("line {}", number + 3), "a product and eight words".into()))
        };
        lines.enumerate().map(choice).collect()
    }
}

fn parse_line(line: &str) -> Option<(String, Words)> {
    let (key, words) = line.split_once('\t')?;
    let words = words.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
    let words: Vec<u64> = words.collect::<Option<_>>()?;
    Some((key.to_string(), words.try_into().ok()?))
}

/// The machine's words as a file name: letters and digits, anything else a single dash.
fn file_name(machine: &str) -> String {
    let words = machine.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-") + ".products"
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "NVIDIA H200, driver 13000, cublasLt 130100";

    fn choices() -> Choices {
        Choices::new(MACHINE.into())
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_next_process_knows_what_this_one_chose() {
        let folder = folder();
        let below = folder.path().join("not/yet/there");
        let mut first = choices();
        first.keep(&below).unwrap();
        assert!(first.get("a 1 x 2").is_none());
        first.insert("a 1 x 2".into(), [1, 2, 3, 4, 5, 6, 7, u64::MAX]).unwrap();
        first.insert("b".into(), [0; 8]).unwrap();
        let mut second = choices();
        second.keep(&below).unwrap();
        assert_eq!(second.get("a 1 x 2"), Some(&[1, 2, 3, 4, 5, 6, 7, u64::MAX]));
        assert_eq!(second.get("b"), Some(&[0; 8]));
        let files: Vec<_> = fs::read_dir(&below).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(files, ["nvidia-h200-driver-13000-cublaslt-130100.products"]);
    }

    #[test]
    fn another_machine_has_a_file_of_its_own() {
        let folder = folder();
        let mut here = choices();
        here.keep(folder.path()).unwrap();
        here.insert("a".into(), [1; 8]).unwrap();
        let mut other = Choices::new("NVIDIA H200, driver 13010, cublasLt 130100".into());
        other.keep(folder.path()).unwrap();
        assert!(other.get("a").is_none());
    }

    #[test]
    fn a_file_that_is_not_one_is_named_ignored_and_replaced() {
        let folder = folder();
        let path = folder.path().join(file_name(MACHINE));
        let line = format!("a\t{}", ["00000000000000ff"; 8].join(" "));
        for (text, found) in [
            (String::new(), "found ``"),
            ("{}".into(), "found `{}`"),
            (format!("{TITLE}\nanother machine\n{line}\n"), "found `another machine`"),
            (format!("{TITLE}\n{MACHINE}\n{line}\nno tabs\n"), "found line 4"),
            (format!("{TITLE}\n{MACHINE}\n{line} 00\n"), "found line 3"),
        ] {
            fs::write(&path, text).unwrap();
            let mut choices = choices();
            let error = choices.keep(folder.path()).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("products"), "{error}");
            assert!(choices.get("a").is_none());
            choices.insert("b".into(), [2; 8]).unwrap();
            let mut again = Choices::new(MACHINE.into());
            again.keep(folder.path()).unwrap();
            assert_eq!(again.get("b"), Some(&[2; 8]));
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(choices().keep(folder.path()), Err(ChoicesError::Io { .. })));
    }

    #[test]
    fn what_cannot_be_written_leaves_no_trace_and_is_remembered() {
        let folder = folder();
        let mut choices = choices();
        choices.keep(folder.path()).unwrap();
        fs::create_dir(folder.path().join(file_name(MACHINE))).unwrap(); // in its place
        assert!(choices.insert("a".into(), [1; 8]).is_err());
        assert_eq!(choices.get("a"), Some(&[1; 8]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the unfinished file is gone");
    }
}
