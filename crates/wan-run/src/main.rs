//! The `wan-run` command: parse, dispatch, exit code.

mod cli;
mod error;
mod generate;
mod hub;
mod info;
mod inspect;
mod models;
mod options;
mod output;
mod probe;
mod progress;
mod pull_progress;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use wan_core::progress::CancelToken;
use wan_models::Registry;

use cli::{Cli, Command};
use error::{Failure, INTERRUPTED, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cancel = CancelToken::new();
    on_ctrl_c(cancel.clone());
    match dispatch(cli, &cancel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("wan-run: {}", failure.line());
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli, cancel: &CancelToken) -> Outcome {
    match cli.command {
        None => generate::run(cli.generate, cancel),
        Some(Command::Generate(args)) => generate::run(*args, cancel),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::Models { command }) => models::run(command, cancel),
        Some(Command::Sample { output, overwrite }) => sample(&output, overwrite),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "wan-run", &mut std::io::stdout());
            Ok(())
        }
        Some(Command::Man) => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(Failure::run)
        }
    }
}

/// The first Ctrl-C asks the job to stop at the next step, the second ends the program at once.
fn on_ctrl_c(cancel: CancelToken) {
    let handler = move || {
        if cancel.is_cancelled() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("stopping at the next step (press Ctrl-C again to stop at once)");
        cancel.cancel();
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("wan-run: Ctrl-C cannot be handled ({error}): it will stop the program at once");
    }
}

fn sample(output: &Path, overwrite: bool) -> Outcome {
    output::check_file(Some(output), overwrite)?;
    std::fs::write(output, Registry::sample_image())
        .map_err(|e| Failure::run(format!("{}: {e}", output.display())))
}
