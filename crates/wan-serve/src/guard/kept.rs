//! Secrets that outlive restarts.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::token::{Token, random};
use crate::ServeError;

/// A token that outlives restarts, in a file that only its owner reads.
pub(crate) fn kept_token(data: &Path) -> Result<Token, ServeError> {
    let file = data.join("token");
    let text = kept_secret(&file)?;
    Token::new(&text).map_err(|error| match error {
        ServeError::Token { found } => {
            let source =
                io::Error::other(format!("found {found}, expected a token; remove the file for a new one"));
            ServeError::Folder { path: file, source }
        }
        error => error,
    })
}

/// Random text that outlives restarts, in a file that only its owner reads; an empty one is made anew.
pub(crate) fn kept_secret(file: &Path) -> Result<String, ServeError> {
    let failed = |source| ServeError::Folder { path: file.to_path_buf(), source };
    match fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let secret = random();
    // Whole or not at all: half of one would be another one, at the next start.
    let unfinished = file.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&unfinished).and_then(|mut file| {
        writeln!(file, "{secret}")?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&unfinished, file)).map_err(failed)?;
    Ok(secret)
}
