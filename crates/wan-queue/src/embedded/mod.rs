//! The queue of one process, in an SQLite database.

mod changes;
mod rows;
mod schema;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Number;

use crate::{
    Claim, Counts, History, HistoryEntry, JobQueue, Json, Lease, Outcome, Page, Priority, QueueError, Result,
    Snapshot, Submission,
};
use changes::Changes;
use rows::ITEM;

const DATABASE: &str = "queue.sqlite3";
const LOCK: &str = "queue.lock";

/// How much an [`EmbeddedQueue`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may be pending.
    pub pending: usize,
    /// Entries of the history; the oldest make room.
    pub history: usize,
}

impl Default for Limits {
    /// 1000 pending jobs, 10,000 entries.
    fn default() -> Self {
        Self { pending: 1000, history: 10_000 }
    }
}

/// The queue of one process, in an SQLite database in a folder of its own. Every change is on the disk when the
/// method that made it returns.
pub struct EmbeddedQueue {
    path: PathBuf,
    limits: Limits,
    writer: Mutex<Connection>,
    /// Reads do not wait for the disk that a change is on its way to.
    reader: Mutex<Connection>,
    changes: Changes,
    /// Held for as long as the queue is open; the system drops it with the process.
    _lock: File,
}

impl EmbeddedQueue {
    /// Opens the queue in `folder`, or makes one there. Jobs that were running when the last process ended are to
    /// be claimed again.
    ///
    /// Errors: [`QueueError::InUse`], [`QueueError::Version`], [`QueueError::Io`], [`QueueError::Storage`].
    pub fn open(folder: &Path, limits: Limits) -> Result<Self> {
        Self::open_after(folder, limits, || {})
    }

    /// [`Self::open`], with `make_room` called before the database needs any: by then the folder is this process's alone.
    ///
    /// Errors: those of [`Self::open`].
    pub fn open_after(folder: &Path, limits: Limits, make_room: impl FnOnce()) -> Result<Self> {
        let lock = lock(folder)?;
        make_room();
        let path = folder.join(DATABASE);
        let storage = |source| QueueError::Storage { path: path.clone(), source };
        let mut writer = Connection::open(&path).map_err(storage)?;
        let set_up = |c: &Connection| {
            c.pragma_update(None, "journal_mode", "wal")?;
            // A commit is on the disk before it is acknowledged.
            c.pragma_update(None, "synchronous", "full")?;
            c.busy_timeout(Duration::from_secs(10))
        };
        set_up(&writer).map_err(storage)?;
        schema::migrate(&mut writer, &path)?;
        // The lock shows that whoever held these is gone.
        let lost = "UPDATE job SET worker = NULL, lease_ms = NULL WHERE worker IS NOT NULL";
        writer.execute(lost, []).map_err(storage)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&path, flags).map_err(storage)?;
        Ok(Self {
            limits,
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            changes: Changes::default(),
            _lock: lock,
            path,
        })
    }

    fn storage(&self, source: rusqlite::Error) -> QueueError {
        match source {
            rusqlite::Error::FromSqlConversionFailure(column, _, reason) => {
                QueueError::Damaged { what: format!("column {column}"), reason: reason.to_string() }
            }
            source => QueueError::Storage { path: self.path.clone(), source },
        }
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        query(&guard(&self.reader)).map_err(|e| self.storage(e))
    }

    /// One transaction; nothing of it remains if `change` fails.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T> {
        let outcome = {
            let mut connection = guard(&self.writer);
            connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(Fault::Storage)
                .and_then(|tx| {
                    let value = change(&tx)?;
                    tx.commit()?;
                    Ok(value)
                })
        };
        outcome.map_err(|fault| match fault {
            Fault::Queue(error) => error,
            Fault::Storage(error) => self.storage(error),
        })
    }

    /// [`Self::write`], and those who wait for a change are woken.
    fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T> {
        let value = self.write(change)?;
        self.changes.notify();
        Ok(value)
    }
}

/// Why a transaction was given up.
enum Fault {
    Queue(QueueError),
    Storage(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

/// A connection is usable whatever panicked beside it: its open transaction was rolled back.
fn guard(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let io = |source| QueueError::Io { path: path.clone(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(QueueError::InUse { folder: folder.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(io(error)),
        Ok(()) => Ok(file),
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64)
}

fn after(duration: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// Takes the counter's value and lets it grow by one.
fn count(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row("UPDATE counter SET next = next + 1 RETURNING next - 1", [], |row| row.get(0))
}

fn number(tx: &Transaction<'_>, priority: Priority) -> Result<Number, Fault> {
    match priority {
        Priority::Next => Ok(count(tx)?.into()),
        Priority::Front => Ok((-count(tx)?).into()),
        Priority::Number(found) => Number::from_f64(found).ok_or(Fault::Queue(QueueError::Number { found })),
    }
}

/// A change of a job by whoever holds it.
fn held(changed: usize, lease: &Lease) -> Result<(), Fault> {
    match changed {
        0 => Err(Fault::Queue(QueueError::LeaseLost { prompt_id: lease.prompt_id.clone() })),
        _ => Ok(()),
    }
}

/// How a row is found that is still `lease`'s.
const HELD: &str = "arrival = ?1 AND token = ?2 AND worker IS NOT NULL";

fn ids(prompt_ids: &[String]) -> String {
    // Strings always serialise.
    serde_json::to_string(prompt_ids).unwrap_or_default()
}

impl JobQueue for EmbeddedQueue {
    fn submit(&self, submission: &Submission) -> Result<Number> {
        let Submission { prompt_id, priority, prompt, extra_data, outputs } = submission;
        self.change(|tx| {
            let pending: usize =
                tx.query_row("SELECT count(*) FROM job WHERE worker IS NULL", [], |row| row.get(0))?;
            if pending >= self.limits.pending {
                return Err(Fault::Queue(QueueError::Full { pending, limit: self.limits.pending }));
            }
            let there = tx.query_row("SELECT 1 FROM job WHERE prompt_id = ?1", [prompt_id], |_| Ok(()));
            if there.optional()?.is_some() {
                return Err(Fault::Queue(QueueError::Duplicate { prompt_id: prompt_id.clone() }));
            }
            let number = number(tx, *priority)?;
            tx.execute("DELETE FROM history WHERE prompt_id = ?1", [prompt_id])?;
            tx.execute(
                "INSERT INTO job (prompt_id, number, prompt, extra_data, outputs, submitted_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    prompt_id,
                    rows::stored(&number),
                    prompt.get(),
                    extra_data.get(),
                    ids(outputs),
                    now_ms()
                ],
            )?;
            Ok(number)
        })
    }

    fn count_refused(&self) -> Result<()> {
        self.write(|tx| Ok(count(tx).map(drop)?))
    }

    fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>> {
        let nothing = "SELECT NOT EXISTS (SELECT 1 FROM job WHERE worker IS NULL OR lease_ms < ?1)";
        if self.read(|c| c.prepare_cached(nothing)?.query_row([now_ms()], |row| row.get(0)))? {
            return Ok(None);
        }
        self.change(|tx| {
            let sql = format!(
                "UPDATE job SET begun = 1, worker = ?1, lease_ms = ?2, token = token + 1, attempts = attempts + 1
                 WHERE arrival = (SELECT arrival FROM job WHERE worker IS NULL OR lease_ms < ?3
                                  ORDER BY begun DESC, number, arrival LIMIT 1)
                 RETURNING {ITEM}, token, attempts, state, cancelled"
            );
            Ok(tx.query_row(&sql, params![worker, after(lease), now_ms()], rows::claim).optional()?)
        })
    }

    fn renew(&self, lease: &Lease, duration: Duration) -> Result<()> {
        self.write(|tx| {
            let sql = format!("UPDATE job SET lease_ms = ?3 WHERE {HELD}");
            held(tx.execute(&sql, params![lease.arrival, lease.token, after(duration)])?, lease)
        })
    }

    fn is_cancelled(&self, lease: &Lease) -> Result<bool> {
        let cancelled = self.read(|c| {
            let mut statement = c.prepare_cached(&format!("SELECT cancelled FROM job WHERE {HELD}"))?;
            statement.query_row([lease.arrival, lease.token], |row| row.get(0)).optional()
        })?;
        cancelled.ok_or_else(|| QueueError::LeaseLost { prompt_id: lease.prompt_id.clone() })
    }

    fn save_state(&self, lease: &Lease, state: &Json) -> Result<()> {
        self.write(|tx| {
            let sql = format!("UPDATE job SET state = ?3, attempts = 0 WHERE {HELD}");
            held(tx.execute(&sql, params![lease.arrival, lease.token, state.get()])?, lease)
        })
    }

    fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()> {
        let Outcome { verdict, outputs, messages, meta } = outcome;
        self.change(|tx| {
            let sql = format!(
                "INSERT INTO history
                     (prompt_id, number, prompt, extra_data, outputs, arrival, submitted_ms,
                      verdict, results, messages, meta, finished_ms)
                 SELECT prompt_id, number, prompt, extra_data, outputs, arrival, submitted_ms,
                      ?3, ?4, ?5, ?6, ?7 FROM job WHERE {HELD}"
            );
            let (verdict, outputs) = (rows::verdict_name(*verdict), outputs.get());
            let (messages, meta) = (messages.get(), meta.get());
            let values = params![lease.arrival, lease.token, verdict, outputs, messages, meta, now_ms()];
            held(tx.execute(&sql, values)?, lease)?;
            tx.execute("DELETE FROM job WHERE arrival = ?1", [lease.arrival])?;
            tx.execute(
                "DELETE FROM history WHERE position <=
                     (SELECT position FROM history ORDER BY position DESC LIMIT 1 OFFSET ?1)",
                [self.limits.history],
            )?;
            Ok(())
        })
    }

    fn release(&self, lease: &Lease) -> Result<()> {
        self.change(|tx| {
            let sql = format!("UPDATE job SET worker = NULL, lease_ms = NULL, attempts = 0 WHERE {HELD}");
            held(tx.execute(&sql, params![lease.arrival, lease.token])?, lease)
        })
    }

    fn cancel(&self, prompt_id: Option<&str>) -> Result<Vec<String>> {
        self.change(|tx| {
            let mut statement = tx.prepare(
                "UPDATE job SET cancelled = 1 WHERE worker IS NOT NULL AND (?1 IS NULL OR prompt_id = ?1)
                 RETURNING prompt_id",
            )?;
            let asked = statement.query_map([prompt_id], |row| row.get(0))?;
            Ok(asked.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn delete_pending(&self, prompt_ids: &[String]) -> Result<usize> {
        self.change(|tx| {
            let sql =
                "DELETE FROM job WHERE worker IS NULL AND prompt_id IN (SELECT value FROM json_each(?1))";
            Ok(tx.execute(sql, [ids(prompt_ids)])?)
        })
    }

    fn clear_pending(&self) -> Result<usize> {
        self.change(|tx| Ok(tx.execute("DELETE FROM job WHERE worker IS NULL", [])?))
    }

    fn snapshot(&self) -> Result<Snapshot> {
        self.read(|c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT {ITEM}, worker IS NOT NULL FROM job ORDER BY begun DESC, number, arrival"
            ))?;
            let mut rows = statement.query([])?;
            let mut snapshot = Snapshot::default();
            while let Some(row) = rows.next()? {
                let running: bool = row.get(rows::AFTER_ITEM)?;
                let list = if running { &mut snapshot.running } else { &mut snapshot.pending };
                list.push(rows::item(row)?);
            }
            Ok(snapshot)
        })
    }

    fn counts(&self) -> Result<Counts> {
        self.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT count(worker), count(*) - count(worker), (SELECT count(*) FROM history) FROM job",
            )?;
            statement.query_row([], |row| {
                Ok(Counts { running: row.get(0)?, pending: row.get(1)?, history: row.get(2)? })
            })
        })
    }

    fn history_entry(&self, prompt_id: &str) -> Result<Option<HistoryEntry>> {
        self.read(|c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT {ITEM}, verdict, results, messages, meta FROM history WHERE prompt_id = ?1"
            ))?;
            statement.query_row([prompt_id], rows::history_entry).optional()
        })
    }

    fn history(&self, page: Page) -> Result<History> {
        let sql = |order: &str| {
            format!(
                "SELECT {ITEM}, verdict, results, messages, meta FROM history
                 ORDER BY position {order} LIMIT ?1 OFFSET ?2"
            )
        };
        // SQLite's signed integers: -1 is no limit.
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let limit = page.max_items.map_or(-1, signed);
        self.read(|c| {
            let from_end = page.offset.is_none() && page.max_items.is_some();
            let mut statement = c.prepare_cached(&sql(if from_end { "DESC" } else { "ASC" }))?;
            let rows = statement.query_map([limit, page.offset.map_or(0, signed)], rows::history_entry)?;
            let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            if from_end {
                entries.reverse();
            }
            Ok(History(entries))
        })
    }

    fn delete_history(&self, prompt_ids: &[String]) -> Result<usize> {
        self.change(|tx| {
            let sql = "DELETE FROM history WHERE prompt_id IN (SELECT value FROM json_each(?1))";
            Ok(tx.execute(sql, [ids(prompt_ids)])?)
        })
    }

    fn clear_history(&self) -> Result<usize> {
        self.change(|tx| Ok(tx.execute("DELETE FROM history", [])?))
    }

    fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        self.changes.wait(seen, timeout)
    }
}
