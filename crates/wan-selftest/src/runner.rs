use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use candle_core::Device;
use wan_core::device::is_lost;
use wan_pipeline::Result;

use crate::{Check, Outcome, Row};

/// Which rows are run, and until when.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Parts of `group/name`; a row is run if it contains one of them. None: all rows.
    pub only: Vec<String>,
    /// Rows that would start later are skipped.
    pub deadline: Option<Instant>,
}

impl Selection {
    /// Whether a row is asked for.
    pub fn wants(&self, group: &str, name: &str) -> bool {
        let whole = format!("{group}/{name}");
        self.only.is_empty() || self.only.iter().any(|part| whole.contains(part.as_str()))
    }

    /// Whether any row of a group may be asked for: what the group needs is then made.
    pub fn wants_group(&self, group: &str) -> bool {
        let may = |part: &String| part.split_once('/').is_none_or(|(of, _)| group.ends_with(of));
        self.only.is_empty() || self.only.iter().any(may)
    }
}

/// Runs rows one by one: one that fails, or panics, does not stop the others.
pub struct Runner<'a> {
    device: &'a Device,
    selection: &'a Selection,
    rows: Vec<Row>,
    sink: &'a mut dyn FnMut(&Row),
    lost: bool,
}

impl<'a> Runner<'a> {
    /// A runner that shows each row to `sink` when it is done.
    pub fn new(device: &'a Device, selection: &'a Selection, sink: &'a mut dyn FnMut(&Row)) -> Self {
        Self { device, selection, rows: Vec::new(), sink, lost: false }
    }

    /// Runs one row, if it was asked for.
    pub fn row(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        run: impl FnOnce() -> Result<Vec<Check>>,
    ) {
        let name = name.into();
        if !self.selection.wants(group, &name) {
            return;
        }
        let begun = Instant::now();
        let (outcome, checks) = if self.lost {
            (Outcome::Skipped("the GPU's context was lost in an earlier row".into()), Vec::new())
        } else if self.selection.deadline.is_some_and(|end| begun >= end) {
            (Outcome::Skipped("the time limit".into()), Vec::new())
        } else {
            self.outcome(run)
        };
        let row = Row { group, name, outcome, checks, seconds: begun.elapsed().as_secs_f64() };
        (self.sink)(&row);
        self.rows.push(row);
    }

    /// A row that this device, or these options, cannot have.
    pub fn skip(&mut self, group: &'static str, name: impl Into<String>, reason: &str) {
        let name = name.into();
        if self.selection.wants(group, &name) {
            let outcome = Outcome::Skipped(reason.into());
            let row = Row { group, name, outcome, checks: Vec::new(), seconds: 0.0 };
            (self.sink)(&row);
            self.rows.push(row);
        }
    }

    /// All rows, in order.
    pub fn finish(self) -> Vec<Row> {
        self.rows
    }

    fn outcome(&mut self, run: impl FnOnce() -> Result<Vec<Check>>) -> (Outcome, Vec<Check>) {
        let answer = catch_unwind(AssertUnwindSafe(run));
        let reason = match answer {
            Ok(Ok(checks)) => {
                let good = checks.iter().all(Check::passes);
                return (if good { Outcome::Passed } else { Outcome::Failed }, checks);
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("panic: {}", message(&*panic)),
        };
        // After an illegal access every later call fails as well: only a new process gets further.
        self.lost = is_lost(self.device);
        let lost = if self.lost { "; the GPU's context is lost" } else { "" };
        (Outcome::Error(format!("{reason}{lost}")), Vec::new())
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcomes(selection: &Selection) -> Vec<(String, Outcome)> {
        let mut seen = 0;
        let mut sink = |_: &Row| seen += 1;
        let mut runner = Runner::new(&Device::Cpu, selection, &mut sink);
        runner.row("a", "good", || Ok(vec![Check::at_most("x", 1.0, 2.0)]));
        runner.row("a", "bad", || Ok(vec![Check::at_most("x", 3.0, 2.0)]));
        runner.row("b", "broken", || Err(wan_core::Error::Cancelled.into()));
        runner.row("b", "panics", || panic!("no {}", "way"));
        runner.row("b", "last", || Ok(Vec::new()));
        let rows = runner.finish();
        assert_eq!(seen, rows.len());
        rows.into_iter().map(|row| (row.name, row.outcome)).collect()
    }

    #[test]
    fn every_row_is_run_whatever_the_others_do() {
        let rows = outcomes(&Selection::default());
        assert_eq!(rows.len(), 5);
        assert_eq!(rows[0].1, Outcome::Passed);
        assert_eq!(rows[1].1, Outcome::Failed);
        assert!(matches!(&rows[2].1, Outcome::Error(_)));
        assert_eq!(rows[3].1, Outcome::Error("panic: no way".into()));
        assert_eq!(rows[4].1, Outcome::Passed);
    }

    #[test]
    fn rows_are_chosen_by_name_and_stop_at_the_deadline() {
        let only = Selection { only: vec!["b/".into(), "good".into()], deadline: None };
        let names: Vec<_> = outcomes(&only).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["good", "broken", "panics", "last"]);
        assert!(only.wants_group("b") && only.wants_group("a"));
        let one = Selection { only: vec!["ops/linear".into()], deadline: None };
        assert!(one.wants_group("ops") && !one.wants_group("components"));
        let past = Instant::now().checked_sub(Duration::from_secs(1));
        let late = outcomes(&Selection { only: Vec::new(), deadline: past.or(Some(Instant::now())) });
        assert!(late.iter().all(|(_, outcome)| matches!(outcome, Outcome::Skipped(_))));
    }
}
