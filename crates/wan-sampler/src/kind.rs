//! Names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SamplerError;

/// The solvers a user can choose from, by the names of the reference's user interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SchedulerKind {
    /// `dpm++`: DPM-Solver++(2M), midpoint, data prediction.
    #[serde(rename = "dpm++")]
    DpmPp2M,
    /// `dpm++_sde`: its stochastic variant; draws noise in every step.
    #[serde(rename = "dpm++_sde")]
    DpmPpSde,
    /// `unipc`: UniPC of order 2 with B(h) = e^h - 1, predictor and corrector.
    #[serde(rename = "unipc")]
    UniPc,
    /// `euler`: the explicit Euler method.
    #[serde(rename = "euler")]
    Euler,
}

impl SchedulerKind {
    /// All solvers, in the order in which help texts list them.
    pub const ALL: [Self; 4] = [Self::DpmPp2M, Self::DpmPpSde, Self::UniPc, Self::Euler];

    /// The solver's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmPp2M => "dpm++",
            Self::DpmPpSde => "dpm++_sde",
            Self::UniPc => "unipc",
            Self::Euler => "euler",
        }
    }

    /// Whether every step takes a tensor of standard normal noise.
    pub fn needs_noise(self) -> bool {
        self == Self::DpmPpSde
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = SamplerError;

    fn from_str(name: &str) -> Result<Self, SamplerError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| SamplerError::UnknownScheduler { found: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<SchedulerKind>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        for name in ["dpm++/beta", "DPM++", "", "ddim"] {
            let message = name.parse::<SchedulerKind>().unwrap_err().to_string();
            assert!(message.contains(&format!("'{name}'")), "{message}");
            for kind in SchedulerKind::ALL {
                assert!(message.contains(kind.name()), "{message}");
            }
        }
    }
}
