//! What earlier runs of a batch did: `FILE.state.jsonl` beside `FILE.jsonl`.
//!
//! A record is added when a job's output is chosen and when its video is whole. Jobs are known by what they are, not by
//! their line, so that lines may be added, moved and changed between runs; a video that was deleted is made again.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wan_media::Reservation;

use crate::error::{Failure, Outcome};
use crate::resume::of_batch_line;

/// One thing that happened to a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Digest of the job.
    key: String,
    /// Its video.
    output: PathBuf,
    done: bool,
}

/// What is known of a job.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    /// Its video.
    Done(PathBuf),
    /// It can go on from this resume file.
    Stopped(PathBuf),
}

/// The state file of a batch, held against other runs.
pub(super) struct State {
    path: PathBuf,
    file: RefCell<File>,
    /// What earlier runs did, each job's last record. A record stands for one line: several equal lines take several.
    earlier: RefCell<Vec<Record>>,
    /// What this run does.
    now: RefCell<Vec<Record>>,
    _reserved: Reservation,
}

impl State {
    /// Opens the state file of a batch, or begins it.
    ///
    /// Errors: exit 2 if it cannot be written, holds something else, or another run works on the batch.
    pub fn open(batch: &Path) -> Outcome<Self> {
        let path = batch.with_extension("state.jsonl");
        let failed =
            |e: std::io::Error| Failure::usage(format!("state of the batch {}: {e}", path.display()));
        let reserved = Reservation::take(&path)?.ok_or_else(|| {
            Failure::usage(format!("batch {}: another run is working on it", batch.display()))
        })?;
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(failed)?,
        };
        // A line that was cut off when the machine went down has no end.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let foreign = |found: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "state of the batch {}: found something else ({found}), expected what an earlier run wrote; remove the \
                 file to make all videos again",
                path.display()
            ))
        };
        let records: Vec<Record> =
            whole.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(|e| foreign(&e))?;
        let (cut, begin) = (&text[whole.len()..], "{\"key\":");
        if !(cut.starts_with(begin) || begin.starts_with(cut)) {
            return Err(foreign(&"a line without an end"));
        }
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        file.set_len(whole.len() as u64).map_err(failed)?;
        Ok(Self {
            file: RefCell::new(file),
            path,
            earlier: RefCell::new(last_of_each(records)),
            now: RefCell::default(),
            _reserved: reserved,
        })
    }

    /// What earlier runs did of the job `key`; the next line with the same key gets another answer.
    pub fn known(&self, key: &str) -> Option<Known> {
        let mut earlier = self.earlier.borrow_mut();
        let mut take = |usable: &dyn Fn(&Record) -> bool| {
            let index = earlier.iter().position(|record| record.key == key && usable(record))?;
            Some(earlier.remove(index).output)
        };
        if let Some(output) = take(&|record| record.done && record.output.exists()) {
            return Some(Known::Done(output));
        }
        let stopped = take(&|record| !record.done && of_batch_line(&record.output, key).is_some())?;
        of_batch_line(&stopped, key).map(Known::Stopped)
    }

    /// Notes that the job `key` makes `output`.
    ///
    /// Errors: exit 1 if the file cannot be written.
    pub fn begun(&self, key: &str, output: &Path) -> Outcome {
        // As it is found from every folder.
        let output = std::path::absolute(output).map_err(Failure::run)?;
        self.add(Record { key: key.to_string(), output, done: false })
    }

    /// Notes that the video of the job that was begun last under `key` is whole.
    ///
    /// Errors: as [`Self::begun`].
    pub fn done(&self, key: &str) -> Outcome {
        let begun = self.now.borrow().iter().rev().find(|record| record.key == key).cloned();
        begun.map_or(Ok(()), |record| self.add(Record { done: true, ..record }))
    }

    fn add(&self, record: Record) -> Outcome {
        let failed = |e: std::io::Error| {
            Failure::run(format!("state of the batch {}: cannot be written: {e}", self.path.display()))
        };
        let line = serde_json::to_string(&record).map_err(Failure::run)? + "\n";
        let mut file = self.file.borrow_mut();
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        self.now.borrow_mut().push(record);
        Ok(())
    }
}

/// The last record of each video. One that replaced another's is that one's end.
fn last_of_each(records: Vec<Record>) -> Vec<Record> {
    let mut last: Vec<Record> = Vec::new();
    for record in records {
        let replaced = |r: &Record| record.done && r.done && r.output == record.output && r.key != record.key;
        last.retain(|earlier| !replaced(earlier));
        let same = |r: &&mut Record| r.key == record.key && r.output == record.output;
        match last.iter_mut().find(same) {
            Some(earlier) => *earlier = record,
            None => last.push(record),
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_to_the_next_run_once_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let batch = at("jobs.jsonl");
        let state = State::open(&batch).unwrap();
        assert!(State::open(&batch).err().unwrap().message.contains("another run"));
        for (key, output) in [("a", "1.mp4"), ("a", "2.mp4"), ("b", "3.mp4"), ("c", "4.mp4"), ("d", "5.mp4")]
        {
            assert_eq!(state.known(key), None);
            state.begun(key, &at(output)).unwrap();
            if key != "d" {
                state.done(key).unwrap();
            }
        }
        drop(state);
        for video in ["1.mp4", "2.mp4", "3.mp4"] {
            std::fs::write(at(video), "").unwrap();
        }
        std::fs::write(at("5.mp4.resume.safetensors"), "").unwrap();
        // Cut off in the middle of a record.
        let mut file = File::options().append(true).open(at("jobs.state.jsonl")).unwrap();
        file.write_all(b"{\"key\":\"e\"").unwrap();

        let state = State::open(&batch).unwrap();
        assert_eq!(state.known("a"), Some(Known::Done(at("1.mp4"))));
        assert_eq!(state.known("a"), Some(Known::Done(at("2.mp4"))));
        assert_eq!(state.known("a"), None, "a third line like these is new");
        assert_eq!(state.known("c"), None, "its video is gone");
        assert_eq!(state.known("d"), None, "what lies there is not its resume file");
        assert_eq!(state.known("b"), Some(Known::Done(at("3.mp4"))));
    }

    #[test]
    fn a_video_that_another_job_replaced_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let (batch, video) = (folder.path().join("jobs.jsonl"), folder.path().join("1.mp4"));
        std::fs::write(&video, "").unwrap();
        let state = State::open(&batch).unwrap();
        for key in ["a", "b"] {
            state.begun(key, &video).unwrap();
            state.done(key).unwrap();
        }
        drop(state);
        let state = State::open(&batch).unwrap();
        assert_eq!(state.known("a"), None);
        assert_eq!(state.known("b"), Some(Known::Done(video)));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("jobs.state.jsonl");
        std::fs::write(&other, "{\"prompt\": \"mine\"}\n").unwrap();
        let failure = State::open(&folder.path().join("jobs.jsonl")).err().unwrap();
        assert!(failure.message.contains("expected what an earlier run wrote"), "{}", failure.message);
        assert_eq!(std::fs::read_to_string(other).unwrap(), "{\"prompt\": \"mine\"}\n");
    }
}
