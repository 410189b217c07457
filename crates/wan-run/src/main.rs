//! The `wan-run` command: parse, dispatch, exit code.

mod batch;
mod cli;
mod doctor;

mod error;
mod extend;
mod finish;
mod generate;
mod hub;
mod info;
mod inspect;
mod kernels;
mod latents;
mod models;
mod nvidia;
mod options;
mod output;
mod probe;
mod progress;
mod pull_progress;
mod record;
mod resume;
mod scheduler_name;
mod selftest;
mod serve;
mod session;
mod settings;
mod signals;
mod target;
mod workflow;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use wan_core::progress::CancelToken;
use wan_models::Registry;

use cli::{Cli, Command};
use error::{Failure, Outcome};
use progress::say;

fn main() -> ExitCode {
    wan_core::memory::keep_freed();
    let outcome = match Cli::try_parse() {
        Ok(cli) => dispatch(cli),
        Err(error)
            if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            Err(Failure::parse(&error))
        }
        Err(help) => help.exit(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("wan-run: {}", failure.line()));
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    kernels::choose()?;
    match cli.command {
        None => generate::run(cli.generate, &interruptible()),
        Some(Command::Generate(args)) => generate::run(*args, &interruptible()),
        Some(Command::Serve(args)) => serve::run(*args),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Models { command }) => models::run(command, &interruptible()),
        Some(Command::Sample { output, overwrite }) => sample(&output, overwrite),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wan-run", &mut script);
            print(&script)
        }
        Some(Command::Selftest(args)) => selftest::run_selftest(*args),
        Some(Command::Bench(args)) => selftest::run_bench(*args),
        Some(Command::Synthesize(args)) => selftest::run_synthesize(&args),
        Some(Command::Trial(args)) => kernels::run_trial(&args),
        Some(Command::Man) => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::run)?;
            print(&page)
        }
    }
}

/// A token that Ctrl-C cancels: the first asks the job to stop after the step under way, the second ends the program at
/// once, without half-written files.
fn interruptible() -> CancelToken {
    let token = CancelToken::new();
    let cancel = token.clone();
    let handler = move || {
        if cancel.is_cancelled() {
            signals::stop_at_once();
        }
        say(
            "stopping after what is under way, unless that ends the job (press Ctrl-C again to stop at once)",
        );
        cancel.cancel();
    };
    if let Err(error) = signals::on_stop(handler) {
        say(&format!("wan-run: Ctrl-C cannot be handled ({error}): it will stop the program at once"));
    }
    token
}

/// Writes to standard output; a closed pipe is the reader's choice, not an error.
pub(crate) fn print(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// As [`print`], a line.
pub(crate) fn print_line(line: &str) -> Outcome {
    print(format!("{line}\n").as_bytes())
}

fn sample(output: &Path, overwrite: bool) -> Outcome {
    Ok(wan_media::write_file(output, Registry::sample_image(), overwrite)?)
}
