use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wan_ops::SpecialKernels;

/// What a trial found of the kernels of one op.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// They compute what they should.
    Right,
    /// They do not, and what they do instead.
    Wrong(String),
    /// They could not be tried, and why.
    Untried(String),
}

impl Verdict {
    /// What a user should know of it. `file`: where it is kept.
    pub fn told(&self, op: SpecialKernels, file: Option<&Path>) -> Option<String> {
        let op = op.name();
        match self {
            Self::Right => None,
            Self::Wrong(reason) => {
                let again = file.map(|file| format!("; delete {} to try again", file.display()));
                let again = again.unwrap_or_default();
                Some(format!(
                    "this GPU's own kernels for {op} are not used, portable ones take their place, more slowly: {reason}. \
                     Please report this{again}"
                ))
            }
            Self::Untried(reason) => {
                Some(format!("this GPU's own kernels for {op} are used without a trial: {reason}"))
            }
        }
    }
}

/// Verdicts of one machine, some of which earlier processes found.
#[derive(Debug)]
pub struct Verdicts {
    file: Option<PathBuf>,
    machine: String,
    known: BTreeMap<String, Verdict>,
}

/// What the file holds: verdicts by op, by machine.
type Kept = BTreeMap<String, BTreeMap<String, Verdict>>;

impl Verdicts {
    /// Those of `machine` (everything that they depend on, in words) in the user's cache folder. A file that is missing or
    /// damaged has none.
    pub fn read(cache: Option<PathBuf>, machine: String) -> Self {
        let file = cache.map(|cache| cache.join("wan-run/kernels.json"));
        let known = kept(file.as_deref()).remove(&machine).unwrap_or_default();
        Self { file, machine, known }
    }

    /// Where they are kept.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The verdict on an op's kernels.
    pub fn get(&self, op: SpecialKernels) -> Option<&Verdict> {
        self.known.get(op.name())
    }

    /// Takes new ones, and writes those that say something to the file, whole or not at all.
    ///
    /// Errors: of writing; they are known all the same.
    pub fn keep(&mut self, found: Vec<(SpecialKernels, Verdict)>) -> io::Result<()> {
        self.known.extend(found.into_iter().map(|(op, verdict)| (op.name().into(), verdict)));
        let Some(file) = &self.file else { return Ok(()) };
        let mut all = kept(Some(file));
        let tried = self.known.iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Untried(_)));
        all.insert(self.machine.clone(), tried.map(|(op, verdict)| (op.clone(), verdict.clone())).collect());
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
        unfinished.write_all(serde_json::to_string_pretty(&all)?.as_bytes())?;
        unfinished.persist(file)?;
        Ok(())
    }
}

fn kept(file: Option<&Path>) -> Kept {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_known_to_the_next_process_on_the_same_machine() {
        let cache = tempfile::tempdir().unwrap();
        let read = |machine: &str| Verdicts::read(Some(cache.path().into()), machine.into());
        let (attention, conv3d) = (SpecialKernels::Attention, SpecialKernels::Conv3d);
        let wrong = Verdict::Wrong("no end".into());
        read("A").keep(vec![(attention, wrong.clone()), (conv3d, Verdict::Right)]).unwrap();
        read("B").keep(vec![(attention, Verdict::Untried("no room".into()))]).unwrap();
        let a = read("A");
        assert_eq!((a.get(attention), a.get(conv3d)), (Some(&wrong), Some(&Verdict::Right)));
        let told = a.get(attention).unwrap().told(attention, a.file()).unwrap();
        assert!(told.contains("no end") && told.contains(&a.file().unwrap().display().to_string()), "{told}");
        assert_eq!(read("B").get(attention), None);
    }

    #[test]
    fn a_damaged_file_is_written_anew_and_none_is_needed() {
        let cache = tempfile::tempdir().unwrap();
        let read = || Verdicts::read(Some(cache.path().into()), "A".into());
        let file = read().file().unwrap().to_path_buf();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "{").unwrap();
        let conv3d = SpecialKernels::Conv3d;
        read().keep(vec![(conv3d, Verdict::Right)]).unwrap();
        assert_eq!(read().get(conv3d), Some(&Verdict::Right));
        let mut without = Verdicts::read(None, "A".into());
        without.keep(vec![(conv3d, Verdict::Right)]).unwrap();
        assert_eq!(without.get(conv3d), Some(&Verdict::Right));
    }
}
