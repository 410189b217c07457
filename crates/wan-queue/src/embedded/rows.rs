//! Rows of the database to values and back.

use rusqlite::types::{FromSqlError, Type, ValueRef};
use rusqlite::{Row, ToSql};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::{Claim, HistoryEntry, Json, Lease, Outcome, QueueItem, Verdict};

/// The columns that [`item`] reads, first in every query for them.
pub(super) const ITEM: &str = "number, prompt_id, prompt, extra_data, outputs, arrival, submitted_ms";

/// The first column behind [`ITEM`].
pub(super) const AFTER_ITEM: usize = 7;

pub(super) fn item(row: &Row<'_>) -> rusqlite::Result<QueueItem> {
    Ok(QueueItem {
        number: number(row, 0)?,
        prompt_id: row.get(1)?,
        prompt: json(row, 2)?,
        extra_data: json(row, 3)?,
        outputs: serde_json::from_str(row.get_ref(4)?.as_str()?).map_err(|e| damaged(4, e))?,
        arrival: row.get(5)?,
        submitted_ms: row.get(6)?,
    })
}

/// Columns behind [`ITEM`]: token, attempts, state, cancelled.
pub(super) fn claim(row: &Row<'_>) -> rusqlite::Result<Claim> {
    let [token, attempts, state, cancelled] = [0, 1, 2, 3].map(|n| AFTER_ITEM + n);
    let item = item(row)?;
    let lease = Lease { prompt_id: item.prompt_id.clone(), arrival: item.arrival, token: row.get(token)? };
    let state = match row.get_ref(state)? {
        ValueRef::Null => None,
        _ => Some(json(row, state)?),
    };
    Ok(Claim { lease, item, attempts: row.get(attempts)?, state, cancelled: row.get(cancelled)? })
}

/// Columns behind [`ITEM`]: verdict, results, messages, meta.
pub(super) fn history_entry(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    let [verdict, results, messages, meta] = [0, 1, 2, 3].map(|n| AFTER_ITEM + n);
    let name = row.get_ref(verdict)?.as_str()?;
    let verdict = Verdict::ALL.into_iter().find(|(_, n)| *n == name).map(|(v, _)| v);
    let verdict = verdict.ok_or(FromSqlError::InvalidType)?;
    let outcome = Outcome {
        verdict,
        outputs: json(row, results)?,
        messages: json(row, messages)?,
        meta: json(row, meta)?,
    };
    Ok(HistoryEntry { item: item(row)?, outcome })
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    Verdict::ALL.into_iter().find(|(v, _)| *v == verdict).map_or("error", |(_, name)| name)
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<Number> {
    match row.get_ref(column)? {
        ValueRef::Integer(n) => Ok(n.into()),
        ValueRef::Real(n) => Number::from_f64(n).ok_or_else(|| FromSqlError::InvalidType.into()),
        _ => Err(FromSqlError::InvalidType.into()),
    }
}

/// A number as it is stored: its kind decides how clients see it again.
pub(super) fn stored(number: &Number) -> Box<dyn ToSql> {
    match number.as_i64() {
        Some(n) => Box::new(n),
        None => Box::new(number.as_f64()),
    }
}

fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Json> {
    RawValue::from_string(row.get(column)?).map_err(|e| damaged(column, e))
}

fn damaged(column: usize, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
