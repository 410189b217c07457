//! The signals that ask the program to stop.

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

#[cfg(unix)]
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

#[cfg(not(unix))]
mod hangup {
    pub fn is_ignored() -> bool {
        false
    }

    pub fn ignore() {}
}
