//! The signals that ask the program to stop.

use std::io::Write;

use crate::error::INTERRUPTED;

/// Ends the program at once, without half-written files.
pub(crate) fn stop_at_once() -> ! {
    wan_media::remove_unfinished();
    leave(INTERRUPTED)
}

/// Ends the program while other threads compute. What libraries have registered for the end is left out: it would take
/// CUDA's apart under those threads.
pub(crate) fn leave(code: u8) -> ! {
    // Whoever reads them may be gone.
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: ends the process, whatever its threads do.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(i32::from(code))
    }
}

/// Has `handler` called, on a thread of its own, at Ctrl-C and at SIGTERM, and at SIGHUP unless that was ignored when the
/// program began: whoever starts it with `nohup` wants it to outlive the terminal.
///
/// Errors: the system's. A second call is one.
pub(crate) fn on_stop(handler: impl FnMut() + Send + 'static) -> Result<(), ctrlc::Error> {
    let outlives_terminal = hangup::is_ignored();
    ctrlc::set_handler(handler)?;
    if outlives_terminal {
        hangup::ignore();
    }
    Ok(())
}

#[allow(unsafe_code)]
mod hangup {
    use std::mem::MaybeUninit;
    use std::ptr::null;

    pub fn is_ignored() -> bool {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: a null action changes nothing; where the call succeeds, it has written the present one.
        unsafe {
            libc::sigaction(libc::SIGHUP, null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }

    pub fn ignore() {
        // SAFETY: a signal that is ignored runs no code.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
}
