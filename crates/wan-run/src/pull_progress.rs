//! Progress of a pull on the terminal.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wan_models::hub::{PullEvent, PullObserver};

use crate::info::size;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

enum Style {
    Bar(RefCell<Option<ProgressBar>>),
    Lines { done: Cell<u64>, total: Cell<u64>, told: Cell<Instant> },
    Silent,
}

/// Shows a pull on standard error: a bar on a terminal, lines elsewhere.
pub struct PullProgress {
    style: Style,
}

impl PullProgress {
    /// Silent if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let style = if quiet {
            Style::Silent
        } else if std::io::stderr().is_terminal() {
            Style::Bar(RefCell::new(None))
        } else {
            Style::Lines { done: Cell::new(0), total: Cell::new(0), told: Cell::new(Instant::now()) }
        };
        Self { style }
    }

    /// A line for the user.
    pub fn note(&self, text: &str) {
        match &self.style {
            Style::Silent => {}
            Style::Lines { .. } => eprintln!("{text}"),
            Style::Bar(bar) => match bar.borrow().as_ref() {
                Some(bar) => bar.suspend(|| eprintln!("{text}")),
                None => eprintln!("{text}"),
            },
        }
    }

    /// All is here.
    pub fn finish(&self) {
        self.note("all files are here");
    }

    fn start(&self, name: &str, from: u64, bytes: u64) {
        match &self.style {
            Style::Silent => {}
            Style::Lines { done, total, told } => {
                done.set(from);
                total.set(bytes);
                told.set(Instant::now());
                eprintln!("{name}: {}{}", size(bytes), resumed(from));
            }
            Style::Bar(bar) => {
                let new = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
                new.set_style(bar_style());
                new.set_prefix(name.to_string());
                // The speed is that of this run, not of what was here before.
                new.set_position(from);
                new.reset_eta();
                *bar.borrow_mut() = Some(new);
            }
        }
    }

    fn advance(&self, bytes: u64) {
        match &self.style {
            Style::Silent => {}
            Style::Bar(bar) => {
                if let Some(bar) = bar.borrow().as_ref() {
                    bar.inc(bytes);
                }
            }
            Style::Lines { done, total, told } => {
                done.set(done.get() + bytes);
                if told.get().elapsed() >= LINE_EVERY {
                    told.set(Instant::now());
                    eprintln!("  {} of {}", size(done.get()), size(total.get()));
                }
            }
        }
    }
}

impl PullObserver for PullProgress {
    fn on_event(&self, event: &PullEvent<'_>) {
        match event {
            PullEvent::Waiting { file } => {
                self.note(&format!("{}: another process fetches it, waiting", file.label()));
            }
            PullEvent::Started { file, from, bytes } => self.start(&file.label(), *from, *bytes),
            PullEvent::Bytes(bytes) => self.advance(*bytes),
            PullEvent::Retrying { file, reason, kept } => {
                self.note(&format!("{}: {reason}; trying again from {}", file.label(), size(*kept)));
            }
            PullEvent::Finished { file, hashed } => {
                if let Style::Bar(bar) = &self.style
                    && let Some(bar) = bar.borrow_mut().take()
                {
                    bar.finish_and_clear();
                }
                let checked = if *hashed {
                    "length and sha256 are right"
                } else {
                    "length is right, no sha256 is known"
                };
                self.note(&format!("{}: {checked}", file.label()));
            }
        }
    }
}

fn resumed(from: u64) -> String {
    if from == 0 { String::new() } else { format!(", going on after {}", size(from)) }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix}\n  [{bar:40}] {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
    )
    .map(|s| s.progress_chars("=> "))
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
