use std::fmt;

use serde::Serialize;

/// One measured value, and what it must be.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What it is.
    pub what: String,
    /// Its value; JSON has `null` for one that is no number.
    pub value: f64,
    /// What it must be, if it is a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// A condition on a value; NaN fulfils none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Not above.
    AtMost(f64),
    /// Not below.
    AtLeast(f64),
}

impl Check {
    /// A value that is only reported.
    pub fn info(what: impl Into<String>, value: f64) -> Self {
        Self { what: what.into(), value, limit: None }
    }

    /// A value that must not be above `limit`.
    pub fn at_most(what: impl Into<String>, value: f64, limit: f64) -> Self {
        Self { what: what.into(), value, limit: Some(Limit::AtMost(limit)) }
    }

    /// A value that must not be below `limit`.
    pub fn at_least(what: impl Into<String>, value: f64, limit: f64) -> Self {
        Self { what: what.into(), value, limit: Some(Limit::AtLeast(limit)) }
    }

    /// Whether the condition, if there is one, is fulfilled.
    pub fn passes(&self) -> bool {
        match self.limit {
            None => true,
            Some(Limit::AtMost(limit)) => self.value <= limit,
            Some(Limit::AtLeast(limit)) => self.value >= limit,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, short(self.value))?;
        match self.limit {
            None => Ok(()),
            Some(Limit::AtMost(limit)) => write!(f, " (at most {})", short(limit)),
            Some(Limit::AtLeast(limit)) => write!(f, " (at least {})", short(limit)),
        }
    }
}

/// Four digits, with an exponent where the number is small or large.
fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-2..1e6).contains(&size) {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        format!("{value:.2e}")
    }
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// Every condition is fulfilled.
    Passed,
    /// A condition is not.
    Failed,
    /// It could not be computed.
    Error(String),
    /// It was not tried.
    Skipped(String),
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What kind of check.
    pub group: &'static str,
    /// Which one.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What was measured.
    pub checks: Vec<Check>,
    /// Time taken, in seconds.
    pub seconds: f64,
}

impl Row {
    /// Whether it is in order: skipped is, since its reason is known beforehand.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Passed | Outcome::Skipped(_))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, reason) = match &self.outcome {
            Outcome::Passed => ("ok", None),
            Outcome::Failed => ("FAILED", None),
            Outcome::Error(reason) => ("ERROR", Some(reason)),
            Outcome::Skipped(reason) => ("skipped", Some(reason)),
        };
        write!(f, "{word:<8}{:<12}{:<44}", self.group, self.name)?;
        match reason {
            Some(reason) => write!(f, " {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => {
                let checks: Vec<_> = self.checks.iter().map(ToString::to_string).collect();
                write!(f, " {}", checks.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_kept_and_nan_fulfils_none() {
        assert!(Check::at_most("x", 1.0, 1.0).passes() && !Check::at_most("x", 1.1, 1.0).passes());
        assert!(Check::at_least("x", 1.0, 1.0).passes() && !Check::at_least("x", 0.9, 1.0).passes());
        assert!(
            !Check::at_most("x", f64::NAN, 1.0).passes() && !Check::at_least("x", f64::NAN, 1.0).passes()
        );
        assert!(Check::info("x", f64::NAN).passes());
        assert_eq!(Check::at_most("error", 0.00123, 0.5).to_string(), "error 1.23e-3 (at most 0.5)");
        assert_eq!(Check::info("cosine", 0.99995).to_string(), "cosine 1");
    }

    #[test]
    fn rows_are_one_json_object_each() {
        let outcome = Outcome::Error("no\nroom".into());
        let checks = vec![Check::at_most("error", f64::NAN, 1.0)];
        let row = Row { group: "ops", name: "linear".into(), outcome, checks, seconds: 0.5 };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["outcome"], "error");
        assert_eq!(json["reason"], "no\nroom");
        assert!(json["checks"][0]["value"].is_null());
        assert_eq!(json["checks"][0]["limit"]["at_most"], 1.0);
        assert!(row.to_string().ends_with(" no room"));
    }
}
