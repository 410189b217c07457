//! Trying a GPU's own kernels in another process: `wan-run trial`, and what asks it. Kernels that do not end, or take down
//! the GPU's context, cost that process and no other.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use wan_core::device::{DeviceChoice, free_bytes};
use wan_ops::SpecialKernels;
use wan_selftest::trial;

use super::Verdict;
use crate::error::{Failure, Outcome};

/// Memory that a GPU must have free for a trial to say something of its kernels.
const ROOM: u64 = 512 << 20;

/// Options of `trial`.
#[derive(Debug, Args)]
pub struct TrialArgs {
    /// cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// attention, conv3d.
    #[arg(value_name = "OP", required = true, value_parser = op)]
    ops: Vec<SpecialKernels>,
}

fn op(name: &str) -> Result<SpecialKernels, String> {
    SpecialKernels::named(name).ok_or_else(|| "expected attention or conv3d".into())
}

/// A line of the process that tries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The device is open, and the kernels of this op are begun.
    Begun(String),
    /// What was found of the op that was begun.
    Found(Verdict),
}

/// Tries kernels of some ops, one after the other, up to the first that are wrong: after them the process is not to be relied
/// on.
pub fn run(args: &TrialArgs) -> Outcome {
    let device = args.device.parse::<DeviceChoice>().map_err(Failure::usage)?.open()?.device;
    let free = || free_bytes(&device).unwrap_or(ROOM);
    for op in &args.ops {
        say(&Line::Begun(op.name().into()))?;
        let found = match trial(&device, *op) {
            Ok(()) => Verdict::Right,
            Err(_) if free() < ROOM => Verdict::Untried("the GPU has less than 512 MiB free".into()),
            Err(reason) => Verdict::Wrong(reason),
        };
        let is_wrong = matches!(found, Verdict::Wrong(_));
        say(&Line::Found(found))?;
        if is_wrong {
            break;
        }
    }
    Ok(())
}

fn say(line: &Line) -> Outcome {
    let mut text = serde_json::to_string(line).map_err(Failure::run)?;
    text.push('\n');
    crate::print(text.as_bytes())
}

/// No trial of `ops`, and why.
pub fn none(ops: &[SpecialKernels], reason: &str) -> Vec<(SpecialKernels, Verdict)> {
    ops.iter().map(|op| (*op, Verdict::Untried(reason.into()))).collect()
}

/// Tries the kernels of all `ops`: `command` makes the process that tries some of them. After kernels that are wrong the
/// others are tried by another process; one that does not answer for `patience` is ended.
pub fn try_all(
    command: impl Fn(&[SpecialKernels]) -> Command,
    ops: &[SpecialKernels],
    patience: Duration,
) -> Vec<(SpecialKernels, Verdict)> {
    let mut found = Vec::new();
    while let rest @ [first, ..] = &ops[found.len()..] {
        match try_some(command(rest), patience) {
            Ok(verdicts) if !verdicts.is_empty() => {
                found.extend(rest.iter().copied().zip(verdicts));
            }
            Ok(_) => found.push((*first, Verdict::Untried("the trial said nothing".into()))),
            Err(reason) => return [found, none(rest, &reason)].concat(),
        }
    }
    found
}

/// What one process found, of its ops in their order.
///
/// Errors: why it began none.
fn try_some(mut command: Command, patience: Duration) -> Result<Vec<Verdict>, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().map_err(|error| error.to_string())?;
    let (sender, lines) = mpsc::channel();
    let stdout = process.stdout.take();
    thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let stderr = process.stderr.take();
    let said = thread::spawn(move || {
        let mut text = String::new();
        // What is said before it cannot be read is what is reported.
        let _ = stderr.map(|mut err| err.read_to_string(&mut text));
        text.lines().last().unwrap_or("nothing was said").to_string()
    });
    let (mut found, mut begun) = (Vec::new(), false);
    loop {
        match lines.recv_timeout(patience).map(|line| serde_json::from_str(&line)) {
            Ok(Ok(Line::Begun(_))) => begun = true,
            Ok(Ok(Line::Found(verdict))) => {
                found.push(verdict);
                begun = false;
            }
            Ok(Err(error)) => {
                end(process);
                return Err(format!("the trial said something else than expected: {error}"));
            }
            Err(RecvTimeoutError::Timeout) => {
                end(process);
                let reason = format!("no answer in {} s", patience.as_secs());
                return match (begun, found.is_empty()) {
                    (true, _) => Ok([found, vec![Verdict::Wrong(reason)]].concat()),
                    (false, true) => Err(reason),
                    (false, false) => Ok(found),
                };
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = process.wait().map_err(|error| error.to_string())?;
    match (begun, found.is_empty()) {
        (true, _) => found.push(after_the_end(status)),
        (false, true) => return Err(said.join().unwrap_or_default()),
        (false, false) => {}
    }
    Ok(found)
}

/// The verdict on kernels under which their process ended.
fn after_the_end(status: ExitStatus) -> Verdict {
    match status.signal() {
        // By somebody else: the user, the system that was short of memory.
        Some(signal @ (libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGKILL)) => {
            Verdict::Untried(format!("the trial was ended by signal {signal}"))
        }
        _ => Verdict::Wrong(format!("the trial ended with {status}")),
    }
}

/// Ends a process without waiting for it: one whose kernels do not end may take a while.
fn end(mut process: Child) {
    thread::spawn(move || {
        let _ = process.kill(); // it may have ended
        let _ = process.wait();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &str = r#"echo '{"begun":"attention"}'"#;
    const RIGHT: &str = r#"echo '{"found":"right"}'"#;

    /// What is found where the process that is to try both ops runs one script, and the one for the second another.
    fn tried(both: &str, second: &str) -> Vec<Verdict> {
        tried_for(Duration::from_secs(60), both, second)
    }

    fn tried_for(patience: Duration, both: &str, second: &str) -> Vec<Verdict> {
        let command = |ops: &[SpecialKernels]| {
            let mut command = Command::new("sh");
            command.args(["-c", if ops.len() == 2 { both } else { second }]);
            command
        };
        let found = try_all(command, &SpecialKernels::ALL, patience);
        assert_eq!(found.iter().map(|(op, _)| *op).collect::<Vec<_>>(), SpecialKernels::ALL);
        found.into_iter().map(|(_, verdict)| verdict).collect()
    }

    fn lines(lines: &[&str]) -> String {
        lines.join("\n")
    }

    #[test]
    fn right_kernels_take_one_process() {
        assert_eq!(tried(&lines(&[BEGUN, RIGHT, BEGUN, RIGHT]), "exit 1"), [Verdict::Right, Verdict::Right]);
    }

    #[test]
    fn wrong_ones_do_not_keep_the_others_from_being_tried() {
        let wrong = r#"echo '{"found":{"wrong":"error 1"}}'"#;
        let found = tried(&lines(&[BEGUN, wrong]), &lines(&[BEGUN, RIGHT]));
        assert_eq!(found, [Verdict::Wrong("error 1".into()), Verdict::Right]);
    }

    #[test]
    fn kernels_that_do_not_end_are_wrong() {
        let found =
            tried_for(Duration::from_secs(3), &lines(&[BEGUN, "exec sleep 60"]), &lines(&[BEGUN, RIGHT]));
        assert_eq!(found, [Verdict::Wrong("no answer in 3 s".into()), Verdict::Right]);
    }

    #[test]
    fn kernels_that_end_their_process_are_wrong() {
        let found = tried(&lines(&[BEGUN, RIGHT, BEGUN, "kill -SEGV $$"]), "exit 1");
        assert_eq!(found[0], Verdict::Right);
        assert!(matches!(&found[1], Verdict::Wrong(reason) if reason.contains("signal")), "{found:?}");
    }

    #[test]
    fn kernels_are_not_blamed_for_what_others_do() {
        let untried = |found: Vec<Verdict>, reason: &str| {
            let all = found.iter().all(|v| matches!(v, Verdict::Untried(text) if text.contains(reason)));
            assert!(all, "{found:?}");
        };
        untried(tried("echo 'wan-run: device cuda:0: busy' >&2; exit 1", "exit 1"), "busy");
        untried(tried_for(Duration::from_secs(1), "exec sleep 60", "exit 1"), "no answer");
        untried(tried("echo what", "exit 1"), "something else");
        // Not SIGINT, which is ignored where the tests were started in the background.
        let ended = lines(&[BEGUN, "kill -TERM $$"]);
        untried(tried(&ended, &ended), "signal 15");
        let missing = |_: &[SpecialKernels]| Command::new("/no/such/program");
        let found = try_all(missing, &SpecialKernels::ALL, Duration::from_secs(2));
        untried(found.into_iter().map(|(_, verdict)| verdict).collect(), "No such file");
    }
}
