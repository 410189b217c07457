//! What was found, as text and as JSON.

use std::fmt;

use serde::Serialize;

use super::redact::Redaction;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    facts: Vec<(&'static str, String)>,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    name: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Some jobs will not run, or not as they could.
    Warn,
    /// Jobs will not run.
    Fail,
}

impl Check {
    /// Nothing to do.
    pub fn ok(name: &'static str, found: impl fmt::Display) -> Self {
        Self { name, state: State::Ok, found: found.to_string(), advice: None }
    }

    /// Something that does not keep jobs from running.
    pub fn warn(name: &'static str, found: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { state: State::Warn, advice: Some(advice.to_string()), ..Self::ok(name, found) }
    }

    /// Something that keeps jobs from running.
    pub fn fail(name: &'static str, found: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { state: State::Fail, ..Self::warn(name, found, advice) }
    }
}

impl Report {
    /// A report with facts about the machine and nothing checked yet.
    pub fn new(facts: Vec<(&'static str, String)>) -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), facts, checks: Vec::new() }
    }

    /// Adds what was found.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Names of what keeps jobs from running.
    pub fn problems(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|c| c.state == State::Fail).map(|c| c.name).collect()
    }

    /// The report without what belongs to the user.
    pub fn redacted(&self, redaction: &Redaction) -> Self {
        let clean = |text: &str| redaction.apply(text);
        let check =
            |c: &Check| Check { found: clean(&c.found), advice: c.advice.as_deref().map(clean), ..c.clone() };
        Self {
            version: self.version,
            facts: self.facts.iter().map(|(name, text)| (*name, clean(text))).collect(),
            checks: self.checks.iter().map(check).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "wan-run {} doctor", self.version)?;
        for (name, text) in &self.facts {
            writeln!(f, "       {name:17} {text}")?;
        }
        for Check { name, state, found, advice } in &self.checks {
            let state = match state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            writeln!(f, "{state:6} {name:17} {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "       {:17} -> {advice}", "")?;
            }
        }
        match self.problems().len() {
            0 => writeln!(f, "no problems found"),
            1 => writeln!(f, "1 problem found"),
            n => writeln!(f, "{n} problems found"),
        }
    }
}
