use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::PipelineError;

/// How many of the DiT's blocks lie in host memory while it computes on a GPU. As text: `auto` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlocksToSwap {
    /// As few as fit.
    #[default]
    Auto,
    /// This many; all, if the model has fewer.
    Count(usize),
}

impl BlocksToSwap {
    /// Whether the plan decides.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl FromStr for BlocksToSwap {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, PipelineError> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Count).map_err(|_| {
                PipelineError::request("blocks-to-swap", format!("`{text}`"), "auto, or a number, 0 or above")
            }),
        }
    }
}

impl fmt::Display for BlocksToSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl Serialize for BlocksToSwap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u64(*count as u64),
        }
    }
}

impl<'de> Deserialize<'de> for BlocksToSwap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected blocks-to-swap = \"auto\", or a number, 0 or above")]
        enum Form {
            Number(usize),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(count) => Ok(Self::Count(count)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}
