//! The database's tables, and how those of earlier versions become the present ones.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::{QueueError, Result};

/// One step per schema version; a database at version `n` has had the first `n`. Never changed, only added to.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE job (
        arrival      INTEGER PRIMARY KEY AUTOINCREMENT,
        prompt_id    TEXT NOT NULL UNIQUE,
        number       ANY NOT NULL,      -- INTEGER from the counter, REAL from a client
        prompt       TEXT NOT NULL,
        extra_data   TEXT NOT NULL,
        outputs      TEXT NOT NULL,
        submitted_ms INTEGER NOT NULL,
        begun        INTEGER NOT NULL DEFAULT 0,  -- 1 once it has been claimed
        worker       TEXT,              -- NULL while nobody holds it
        lease_ms     INTEGER,           -- when the lease ends
        token        INTEGER NOT NULL DEFAULT 0,
        attempts     INTEGER NOT NULL DEFAULT 0,
        cancelled    INTEGER NOT NULL DEFAULT 0,
        state        TEXT
    ) STRICT;
    CREATE INDEX job_order ON job (begun DESC, number, arrival);
    CREATE TABLE history (
        position     INTEGER PRIMARY KEY AUTOINCREMENT,
        prompt_id    TEXT NOT NULL UNIQUE,
        number       ANY NOT NULL,
        prompt       TEXT NOT NULL,
        extra_data   TEXT NOT NULL,
        outputs      TEXT NOT NULL,
        arrival      INTEGER NOT NULL,
        submitted_ms INTEGER NOT NULL,
        verdict      TEXT NOT NULL,
        results      TEXT NOT NULL,
        messages     TEXT NOT NULL,
        meta         TEXT NOT NULL,
        finished_ms  INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE counter (next INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES (0);
"];

/// Brings the database at `path` to the present version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let storage = |source| QueueError::Storage { path: path.to_path_buf(), source };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(storage)?;
    let version: usize = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(storage)?;
    let Some(steps) = MIGRATIONS.get(version..) else {
        let expected = MIGRATIONS.len();
        return Err(QueueError::Version { path: path.to_path_buf(), found: version, expected });
    };
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        tx.execute_batch(step).map_err(storage)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len()).map_err(storage)?;
    tx.commit().map_err(storage)
}
