use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wan_dit::BlockSelection;

use crate::{PipelineError, Result};

/// A LoRA file that is asked for. As text: `FILE[:STRENGTH][:blocks=LIST]`, such as `a.safetensors:0.8:blocks=0-19`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LoraChoice {
    /// The file.
    pub path: PathBuf,
    /// Factor on everything in it.
    pub strength: f64,
    /// Blocks that it may change; `None` for all.
    pub blocks: Option<BlockSelection>,
}

impl FromStr for LoraChoice {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |expected: &str| PipelineError::request("lora", format!("`{text}`"), expected);
        let (mut rest, mut blocks, mut strength) = (text, None, 1.0);
        if let Some((head, list)) = rest.rsplit_once(":blocks=") {
            blocks = Some(list.parse().map_err(|_| wrong("FILE:blocks=LIST with a list such as 0-9,25"))?);
            rest = head;
        }
        if let Some((head, tail)) = rest.rsplit_once(':') {
            match tail.parse() {
                Ok(number) => (rest, strength) = (head, number),
                Err(_) if head.ends_with(".safetensors") => {
                    return Err(wrong("FILE[:STRENGTH][:blocks=LIST] with a number as strength"));
                }
                Err(_) => {} // a colon of the path's own
            }
        }
        if rest.is_empty() {
            return Err(wrong("FILE[:STRENGTH][:blocks=LIST]"));
        }
        let choice = Self { path: rest.into(), strength, blocks };
        choice.check()?;
        Ok(choice)
    }
}

impl LoraChoice {
    /// Checks what can be judged without the file.
    pub(crate) fn check(&self) -> Result<()> {
        if self.strength.is_finite() {
            return Ok(());
        }
        Err(PipelineError::request("lora", format!("`{self}`"), "a finite strength"))
    }
}

impl fmt::Display for LoraChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.strength)?;
        self.blocks.as_ref().map_or(Ok(()), |blocks| write!(f, ":blocks={blocks}"))
    }
}

impl From<LoraChoice> for String {
    fn from(choice: LoraChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for LoraChoice {
    type Error = PipelineError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for (text, path, strength, blocks, written) in [
            ("a.safetensors", "a.safetensors", 1.0, None, "a.safetensors:1"),
            ("b/a.safetensors:-0.5", "b/a.safetensors", -0.5, None, "b/a.safetensors:-0.5"),
            ("a:0.8:blocks=0-19,25", "a", 0.8, Some("0-19,25"), "a:0.8:blocks=0-19,25"),
            ("a.safetensors:blocks=3", "a.safetensors", 1.0, Some("3"), "a.safetensors:1:blocks=3"),
            ("c:\\x\\a.safetensors", "c:\\x\\a.safetensors", 1.0, None, "c:\\x\\a.safetensors:1"),
        ] {
            let choice: LoraChoice = text.parse().unwrap();
            assert_eq!((choice.path.to_str().unwrap(), choice.strength), (path, strength), "{text}");
            assert_eq!(choice.blocks.as_ref().map(ToString::to_string).as_deref(), blocks, "{text}");
            assert_eq!(choice.to_string(), written);
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<LoraChoice>(&json).unwrap(), choice);
        }
        for text in ["", ":0.5", "a.safetensors:strong", "a:blocks=", "a:blocks=4-2", "a:nan", "a:inf"] {
            let error = text.parse::<LoraChoice>().unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with("lora: found `"), "{text}: {error}");
        }
    }
}
