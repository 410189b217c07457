//! The same for people.

use std::fmt;

use bytesize::ByteSize;
use wan_pipeline::{MemoryItem, MemoryPlan, Processor};

use super::{Info, Job, JobState, PlannedJob};

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets: String = self.instruction_sets.iter().map(|set| format!(", {set}")).collect();
        writeln!(f, "wan-run {}\n\ndevices", self.version)?;
        let cards = match (&self.cards, self.cuda) {
            (None, true) => "no NVIDIA card or driver found".into(),
            (None, false) => "not in this build".into(),
            (Some(cards), true) => cards.clone(),
            (Some(cards), false) => {
                format!("not in this build, which cannot use {cards}: see `make build-cuda`")
            }
        };
        writeln!(f, "  cpu     {} threads{sets}\n  cuda    {cards}\n\nmemory", self.threads)?;
        writeln!(f, "  free    {} of {}", bytes(self.free_bytes), bytes(self.total_bytes))?;
        writeln!(f, "\nmodels (in {})", self.places)?;
        for model in &self.models {
            let state = if model.ready { "ready" } else { "files missing" };
            writeln!(f, "  {:34} {state:14} {}", model.name, model.summary)?;
        }
        write!(f, "\n{}", self.job)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job on {}", self.model)?;
        match &self.state {
            JobState::Planned(planned) => planned.fmt(f),
            JobState::Missing { problem, files } => {
                writeln!(f, "  {problem}")?;
                let sizes = files.iter().map(|(key, length)| format!("{key} {}", bytes(*length)));
                let sizes = sizes.collect::<Vec<_>>().join(", ");
                writeln!(f, "  file sizes: {sizes}\n  a plan needs the files: it is made from their headers")
            }
        }
    }
}

impl fmt::Display for PlannedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, frames, tokens, steps, .. } = self;
        writeln!(f, "  video   {width}x{height}, {frames} frames, {tokens} video tokens, {steps} steps")?;
        for report in &self.loras {
            writeln!(f, "  {report}")?;
        }
        table(f, &self.memory)?;
        writeln!(f, "  {}", self.memory.summary())?;
        for note in &self.memory.notes {
            writeln!(f, "  note: {note}")?;
        }
        match self.memory.check() {
            Ok(()) => Ok(()),
            Err(error) => writeln!(f, "  {error}"),
        }
    }
}

/// One line a stage, and the peaks.
fn table(f: &mut fmt::Formatter<'_>, memory: &MemoryPlan) -> fmt::Result {
    let gpu = memory.budget.processor == Processor::Gpu;
    let row = |f: &mut fmt::Formatter<'_>, name: &str, cells: [String; 4]| {
        let [stored, host, weights, working] = cells;
        write!(f, "  {name:18} {stored:>12} {host:>12}")?;
        match gpu {
            true => writeln!(f, " {weights:>12} {working:>12}"),
            false => writeln!(f),
        }
    };
    let titles = ["files", "memory", "GPU weights", "GPU work"].map(String::from);
    row(f, "stage", titles)?;
    for item in &memory.items {
        let MemoryItem { weights_bytes, device_weights_bytes, device_working_bytes, .. } = *item;
        let cells = [weights_bytes, item.host_total_bytes(), device_weights_bytes, device_working_bytes];
        row(f, item.stage.name(), cells.map(size))?;
    }
    Ok(())
}

fn bytes(length: Option<u64>) -> String {
    length.map_or("unknown".into(), size)
}

/// Bytes for people, in powers of 1024.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
