//! A device with two queues that run at any speed relative to each other: every order in which their entries can run
//! is looked at.

use std::collections::HashMap;

use super::schedule::Action;
use super::swapper::Queues;

/// An entry of a queue. Copies and reads take time: they have a start and an end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    /// Waits for a record; nothing to wait for if there was none.
    Await(Option<usize>),
    Record(usize),
    CopyStart {
        slot: usize,
    },
    CopyEnd {
        part: usize,
        slot: usize,
    },
    ReadStart {
        part: usize,
        slot: usize,
    },
    ReadEnd {
        part: usize,
        slot: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Event {
    Filled(usize),
    Free(usize),
}

/// The queues, filled by a host that never waits.
#[derive(Default)]
pub(crate) struct Recorder {
    copy: Vec<Entry>,
    compute: Vec<Entry>,
    latest: HashMap<Event, usize>,
    records: usize,
    /// Copies of each part.
    pub copies: HashMap<usize, usize>,
    /// Entries to leave out, to see whether it is noticed.
    sabotage: Option<fn(&Action) -> bool>,
}

impl Recorder {
    /// Queues that leave out some of what they are given.
    pub fn sabotaged(sabotage: Option<fn(&Action) -> bool>) -> Self {
        Self { sabotage, ..Self::default() }
    }

    fn record(&mut self, event: Event) -> Entry {
        self.records += 1;
        self.latest.insert(event, self.records);
        Entry::Record(self.records)
    }

    fn awaits(&self, event: Event) -> Entry {
        Entry::Await(self.latest.get(&event).copied())
    }

    /// Kernels that read `part` from `slot`.
    pub fn read(&mut self, part: usize, slot: usize) {
        self.compute.extend([Entry::ReadStart { part, slot }, Entry::ReadEnd { part, slot }]);
    }
}

impl Queues for Recorder {
    type Error = std::convert::Infallible;

    fn put(&mut self, action: Action) -> Result<(), Self::Error> {
        if self.sabotage.is_some_and(|leave_out| leave_out(&action)) {
            return Ok(());
        }
        match action {
            Action::AwaitFree { slot } => self.copy.push(self.awaits(Event::Free(slot))),
            Action::Copy { part, slot } => {
                *self.copies.entry(part).or_default() += 1;
                self.copy.extend([Entry::CopyStart { slot }, Entry::CopyEnd { part, slot }]);
            }
            Action::RecordFilled { slot } => {
                let entry = self.record(Event::Filled(slot));
                self.copy.push(entry);
            }
            Action::AwaitFilled { slot } => self.compute.push(self.awaits(Event::Filled(slot))),
            Action::RecordFree { slot } => {
                let entry = self.record(Event::Free(slot));
                self.compute.push(entry);
            }
        }
        Ok(())
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Content {
    Nothing,
    Written,
    Part(usize),
}

/// What one queue has done after each number of its entries.
struct Timeline {
    /// Contents of the slots after this many entries of the copy queue, or reads in progress after as many of the
    /// compute queue.
    contents: Vec<Vec<Content>>,
    reading: Vec<Vec<Option<usize>>>,
}

impl Recorder {
    fn timeline(&self, slots: usize) -> Timeline {
        let mut contents = vec![vec![Content::Nothing; slots]];
        for entry in &self.copy {
            let mut now = contents[contents.len() - 1].clone();
            match *entry {
                Entry::CopyStart { slot } => now[slot] = Content::Written,
                Entry::CopyEnd { part, slot } => now[slot] = Content::Part(part),
                _ => {}
            }
            contents.push(now);
        }
        let mut reading = vec![vec![None; slots]];
        for entry in &self.compute {
            let mut now = reading[reading.len() - 1].clone();
            match *entry {
                Entry::ReadStart { part, slot } => now[slot] = Some(part),
                Entry::ReadEnd { slot, .. } => now[slot] = None,
                _ => {}
            }
            reading.push(now);
        }
        Timeline { contents, reading }
    }

    /// Goes through every state that the two queues can reach, in whatever order their entries run, and returns the
    /// first thing wrong: a part read while its slot holds something else, or queues that wait for ever.
    ///
    /// A state is how far each queue is, which tells what every slot holds and who reads it.
    pub fn check(&self, slots: usize) -> Result<(), String> {
        let timeline = self.timeline(slots);
        let position = |queue: &[Entry]| -> HashMap<usize, usize> {
            queue
                .iter()
                .enumerate()
                .filter_map(|(i, e)| match e {
                    Entry::Record(id) => Some((*id, i)),
                    _ => None,
                })
                .collect()
        };
        let (copy_records, compute_records) = (position(&self.copy), position(&self.compute));
        let passed = |entry: &Entry, records: &HashMap<usize, usize>, done: usize| match entry {
            Entry::Await(Some(id)) => records.get(id).is_none_or(|at| *at < done),
            _ => true,
        };
        let (rows, columns) = (self.copy.len() + 1, self.compute.len() + 1);
        let mut seen = vec![false; rows * columns];
        let mut open = vec![(0, 0)];
        while let Some((i, j)) = open.pop() {
            if std::mem::replace(&mut seen[i * columns + j], true) {
                continue;
            }
            for (slot, reader) in timeline.reading[j].iter().enumerate() {
                let found = timeline.contents[i][slot];
                if let Some(part) = reader.filter(|part| found != Content::Part(*part)) {
                    return Err(format!("slot {slot}: found {found:?}, expected part {part}"));
                }
            }
            let copies = self.copy.get(i).is_some_and(|e| passed(e, &compute_records, j));
            let computes = self.compute.get(j).is_some_and(|e| passed(e, &copy_records, i));
            if copies {
                open.push((i + 1, j));
            }
            if computes {
                open.push((i, j + 1));
            }
            if !copies && !computes && (i + 1, j + 1) != (rows, columns) {
                return Err(format!("the queues wait for each other after {i} and {j} entries"));
            }
        }
        Ok(())
    }
}
