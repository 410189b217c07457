//! Many videos from one command, with the model kept open: `--batch FILE.jsonl` and `--count N`.

mod line;
mod seeds;
mod state;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::GenerateArgs;
use crate::error::{Failure, INTERRUPTED, Outcome, USAGE};
use crate::generate::{self, Begun};
use crate::options::resolve;
use crate::progress::say;
use crate::session::Session;

use line::Line;
use state::{Known, State};

/// One job of several.
struct Entry {
    /// Its name for people, such as `line 3`.
    name: String,
    /// Its entries in JSON events.
    scope: Map<String, Value>,
}

impl Entry {
    /// The job that is number `index` of `of`, counted from 1; for people it is `number` of its kind.
    fn new(kind: &str, number: usize, index: usize, of: usize) -> Self {
        let entries = [(kind, number), ("index", index), ("of", of)];
        let scope = entries.map(|(key, value)| (key.to_string(), value.into()));
        Self { name: format!("{kind} {number}"), scope: scope.into_iter().collect() }
    }
}

/// How the jobs ended.
#[derive(Default)]
struct Tally {
    done: usize,
    skipped: usize,
    failed: Vec<(String, String)>,
}

impl Tally {
    /// Runs one job. Its failure is told and noted, but one that `ends` everything is handed on.
    fn run(
        &mut self,
        entry: &Entry,
        session: &Session<'_>,
        ends: impl FnOnce(&Failure) -> bool,
        job: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let reporter = session.reporter;
        reporter.set_scope(entry.scope.clone());
        reporter.tell(&json!({"event": "begun"}), Some(&entry.name));
        match job() {
            Ok(()) => self.done += 1,
            Err(failure) if ends(&failure) => return Err(failure),
            Err(failure) => {
                let error = failure.line();
                say(&format!("wan-run: {}: {error}", entry.name));
                reporter.tell(&json!({"event": "failed", "error": error}), None);
                self.failed.push((entry.name.clone(), error));
            }
        }
        Ok(())
    }

    /// Tells of a job whose video is there already.
    fn skip(&mut self, entry: &Entry, output: &Path, session: &Session<'_>) {
        session.reporter.set_scope(entry.scope.clone());
        let event = json!({"event": "skipped", "output": output.display().to_string()});
        session.reporter.tell(&event, Some(&format!("{}: done before: {}", entry.name, output.display())));
        self.skipped += 1;
    }

    /// Tells how the jobs ended.
    ///
    /// Errors: exit 1 if one failed.
    fn end(self, what: &str, advice: &str, session: &Session<'_>) -> Outcome {
        let Self { done, skipped, failed } = self;
        session.reporter.set_scope(Map::new());
        let errors: Vec<Value> =
            failed.iter().map(|(job, error)| json!({"job": job, "error": error})).collect();
        let before = if skipped > 0 { format!(", {skipped} done before") } else { String::new() };
        session.reporter.tell(
            &json!({"event": "summary", "done": done, "skipped": skipped, "failed": errors}),
            Some(&format!("{what}: {done} done{before}, {} failed", failed.len())),
        );
        if failed.is_empty() {
            return Ok(());
        }
        let all = done + skipped + failed.len();
        let names = failed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        Err(Failure::run(format!("{what}: {} of {all} failed ({names}){advice}", failed.len())))
    }
}

/// `--batch`: one job a line.
///
/// Errors: exit 2 if the file cannot be read or another run works on it; exit 1 if a line failed; 130 after Ctrl-C.
pub fn of_file(args: &GenerateArgs, file: &Path, session: &Session<'_>) -> Outcome {
    let what = format!("batch {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{what}: {e}")))?;
    // Some editors begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Failure::usage(format!("{what}: found no lines, expected a JSON object on each")));
    }
    let state = State::open(file)?;
    let mut tally = Tally::default();
    // What makes no sense is told before the others take their hours.
    let bad: Vec<Option<Failure>> = lines.iter().map(|(_, text)| check(text, args, session).err()).collect();
    for (index, ((number, _), failure)) in (1..).zip(lines.iter().zip(&bad)) {
        if let Some(failure) = failure {
            let entry = Entry::new("line", *number, index, lines.len());
            tally.run(&entry, session, |_| false, || Err(Failure::usage(&failure.message)))?;
        }
    }
    let good = (1..).zip(lines.iter().zip(&bad)).filter(|(_, (_, failure))| failure.is_none());
    for (index, ((number, text), _)) in good {
        let entry = Entry::new("line", *number, index, lines.len());
        session.cancel.check().map_err(|_| stopped(&what, &entry, "not begun"))?;
        run_line(args, text, &entry, &state, session, &mut tally)
            .map_err(|failure| stopped(&what, &entry, &failure.message))?;
    }
    tally.end(&what, "; correct them and give the same command again: what is done is skipped", session)
}

/// Checks a line without its files, which may not be there yet.
///
/// Errors: exit 2 for what is no job, and for values that make no sense.
fn check(text: &str, args: &GenerateArgs, session: &Session<'_>) -> Outcome {
    let line = Line::read(text, args)?;
    let sensible = generate::settings(&line.args)
        .and_then(|settings| resolve(settings, &session.registry))
        .and_then(|options| Ok(options.request.check()?));
    // Other errors, such as a video with parameters that is not there, are those of the job's own time.
    sensible.or_else(|failure| if failure.code == USAGE { Err(failure) } else { Ok(()) })
}

/// Runs a line, or what is left of it, and keeps in the state file how far it got.
///
/// Errors: only Ctrl-C; other failures are the tally's.
fn run_line(
    args: &GenerateArgs,
    text: &str,
    entry: &Entry,
    state: &State,
    session: &Session<'_>,
    tally: &mut Tally,
) -> Outcome {
    let interrupted = |failure: &Failure| failure.code == INTERRUPTED;
    let line = match Line::read(text, args) {
        Ok(line) => line,
        Err(failure) => return tally.run(entry, session, interrupted, || Err(failure)),
    };
    let run = |args: &GenerateArgs| {
        let begun: Begun<'_> = &|output| state.begun(&line.key, output);
        generate::one(args, session, begun)?;
        state.done(&line.key)
    };
    match state.known(&line.key) {
        None => tally.run(entry, session, interrupted, || run(&line.args)),
        Some(Known::Stopped(resume)) => tally.run(entry, session, interrupted, || {
            run(&line.resumed(&resume))?;
            // It has served; left behind, it would do no harm.
            let _ = std::fs::remove_file(&resume);
            Ok(())
        }),
        Some(Known::Done(output)) => {
            tally.skip(entry, &output, session);
            Ok(())
        }
    }
}

fn stopped(what: &str, entry: &Entry, why: &str) -> Failure {
    Failure::interrupted(format!("{what}: {}: {why}; the same command again goes on from here", entry.name))
}

/// `--count`: the same job with one seed after the other.
///
/// Errors: exit 2 if the first job makes no sense; exit 1 if one failed; 130 after Ctrl-C.
pub fn of_seeds(args: &GenerateArgs, count: u32, session: &Session<'_>) -> Outcome {
    let jobs = seeds::jobs(args, count)?;
    seeds::check_noise(args, session)?;
    let mut tally = Tally::default();
    for (index, (seed, job)) in jobs.iter().enumerate() {
        let entry = Entry::new("video", index + 1, index + 1, jobs.len());
        let interrupted = |why: &str, kept: bool| {
            let left = left(args, jobs.len(), index + usize::from(kept), *seed + u64::from(kept), kept);
            Failure::interrupted(format!("{}: {why}{left}", entry.name))
        };
        session.cancel.check().map_err(|_| interrupted("not begun", false))?;
        // What makes no sense in the first job makes none in any.
        let ends = |failure: &Failure| failure.code == INTERRUPTED || (index == 0 && failure.code == USAGE);
        tally.run(&entry, session, ends, || generate::one(job, session, &|_| Ok(()))).map_err(|failure| {
            if failure.code == INTERRUPTED { interrupted(&failure.message, failure.kept) } else { failure }
        })?;
    }
    tally.end("count", "", session)
}

/// How the videos of `--count` from `index` on are made, the first of them with `seed`: options over those of the same
/// command. `resumed`: the one before has a resume file, and is not among them.
fn left(args: &GenerateArgs, all: usize, index: usize, seed: u64, resumed: bool) -> String {
    let left = all - index;
    if left == 0 {
        return String::new();
    }
    // Names that are chosen are free in any case.
    let named = args.output.is_some() || args.save_latents.is_some() || args.contact_sheet.is_some();
    let first = args.count_from.unwrap_or(1) as usize + index;
    let first = if named { format!(" --count-from {first}") } else { String::new() };
    let then = if resumed { "then " } else { "" };
    format!("; {then}{left} of {all} to go: the same command with --seed {seed} --count {left}{first}")
}
