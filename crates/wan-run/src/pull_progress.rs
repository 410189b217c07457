//! Progress of a pull on the terminal.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use wan_models::hub::{PullEvent, PullObserver};

use crate::cli::ProgressMode;
use crate::info::size;
use crate::progress::say;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Bytes between two JSON events of one file; the last comes with its end.
const JSON_EVERY: u64 = 16 << 20;

enum Style {
    Bar(RefCell<Option<ProgressBar>>),
    Lines { done: Cell<u64>, total: Cell<u64>, told: Cell<Instant> },
    Json { done: Cell<u64>, total: Cell<u64>, told: Cell<u64> },
    Silent,
}

/// Shows a pull: a bar on a terminal, lines elsewhere, both on standard error, or JSON on standard output.
pub struct PullProgress {
    style: Style,
}

impl PullProgress {
    /// As `mode` says; in the automatic mode silent if `quiet`.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        let style = if mode == ProgressMode::Json {
            Style::Json { done: Cell::new(0), total: Cell::new(0), told: Cell::new(0) }
        } else if quiet || mode == ProgressMode::None {
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
            Style::Json { .. } => print_json(&json!({"event": "note", "text": text.trim()})),
            Style::Lines { .. } => say(text),
            Style::Bar(bar) => match bar.borrow().as_ref() {
                Some(bar) => bar.suspend(|| say(text)),
                None => say(text),
            },
        }
    }

    /// All is here.
    pub fn finish(&self) {
        match &self.style {
            Style::Json { .. } => print_json(&json!({"event": "done"})),
            _ => self.note("all files are here"),
        }
    }

    fn start(&self, name: &str, from: u64, bytes: u64) {
        match &self.style {
            Style::Silent => {}
            Style::Json { done, total, told } => {
                done.set(from);
                total.set(bytes);
                told.set(from);
                print_json(&json!({"event": "started", "file": name, "done": from, "total": bytes}));
            }
            Style::Lines { done, total, told } => {
                done.set(from);
                total.set(bytes);
                told.set(Instant::now());
                say(&format!("{name}: {}{}", size(bytes), resumed(from)));
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
            Style::Json { done, total, told } => {
                done.set(done.get() + bytes);
                if done.get() - told.get() >= JSON_EVERY || done.get() == total.get() {
                    told.set(done.get());
                    print_json(&json!({"event": "bytes", "done": done.get(), "total": total.get()}));
                }
            }
            Style::Bar(bar) => {
                if let Some(bar) = bar.borrow().as_ref() {
                    bar.inc(bytes);
                }
            }
            Style::Lines { done, total, told } => {
                done.set(done.get() + bytes);
                if told.get().elapsed() >= LINE_EVERY {
                    told.set(Instant::now());
                    say(&format!("  {} of {}", size(done.get()), size(total.get())));
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
                let from = if *kept == 0 { String::new() } else { format!(" from {}", size(*kept)) };
                self.note(&format!("{}: {reason}; trying again{from}", file.label()));
            }
            PullEvent::Finished { file, hashed } if matches!(self.style, Style::Json { .. }) => {
                print_json(&json!({"event": "finished", "file": file.label(), "hashed": hashed}));
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

/// One object a line. A pull goes on where standard output takes nothing.
fn print_json(value: &Value) {
    let _ = crate::print_line(&value.to_string());
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
