//! Names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SamplerError;

/// The solvers a user can choose from.
///
/// The first four have the names and the sigma grids of ComfyUI-WanVideoWrapper. Those that end in `/simple` are samplers of
/// ComfyUI's own `KSampler` with its scheduler `simple`, each under ComfyUI's name.
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
    /// `euler/simple`: the explicit Euler method.
    #[serde(rename = "euler/simple")]
    EulerSimple,
    /// `dpmpp_2m/simple`: DPM-Solver++(2M) in the logarithm of sigma, as k-diffusion has it.
    #[serde(rename = "dpmpp_2m/simple")]
    DpmPp2MSimple,
    /// `dpmpp_2m_sde/simple`: its stochastic variant, with noise of this crate's own where ComfyUI has a Brownian tree.
    #[serde(rename = "dpmpp_2m_sde/simple")]
    DpmPpSdeSimple,
    /// `uni_pc/simple`: UniPC of order 3 with B(h) = h, in the logarithm of sigma.
    #[serde(rename = "uni_pc/simple")]
    UniPcSimple,
}

impl SchedulerKind {
    /// All solvers, in the order in which help texts list them.
    pub const ALL: [Self; 8] = [
        Self::DpmPp2M,
        Self::DpmPpSde,
        Self::UniPc,
        Self::Euler,
        Self::EulerSimple,
        Self::DpmPp2MSimple,
        Self::DpmPpSdeSimple,
        Self::UniPcSimple,
    ];

    /// The solver's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmPp2M => "dpm++",
            Self::DpmPpSde => "dpm++_sde",
            Self::UniPc => "unipc",
            Self::Euler => "euler",
            Self::EulerSimple => "euler/simple",
            Self::DpmPp2MSimple => "dpmpp_2m/simple",
            Self::DpmPpSdeSimple => "dpmpp_2m_sde/simple",
            Self::UniPcSimple => "uni_pc/simple",
        }
    }

    /// Whether every step takes a tensor of standard normal noise.
    pub fn needs_noise(self) -> bool {
        matches!(self, Self::DpmPpSde | Self::DpmPpSdeSimple)
    }

    /// Whether its grid and its share of steps are those of ComfyUI's own `KSampler`.
    pub(crate) fn is_simple(self) -> bool {
        matches!(self, Self::EulerSimple | Self::DpmPp2MSimple | Self::DpmPpSdeSimple | Self::UniPcSimple)
    }

    /// The names of all solvers, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
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
