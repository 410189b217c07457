use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use wan_core::{Error, Result};

/// Some of a model's blocks, counted from 0. As text: numbers and ranges with commas, such as `0-9,25,30-39`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSelection(Vec<RangeInclusive<usize>>);

impl BlockSelection {
    /// Whether `block` is one of them.
    pub fn contains(&self, block: usize) -> bool {
        self.0.iter().any(|range| range.contains(&block))
    }

    /// The highest number in it.
    pub fn last(&self) -> usize {
        self.0.iter().map(|range| *range.end()).max().unwrap_or(0)
    }
}

impl FromStr for BlockSelection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("blocks", format!("`{text}`"), "numbers and ranges such as 0-9,25");
        let part = |part: &str| -> Result<RangeInclusive<usize>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.trim().parse().map_err(|_| wrong())?;
            let last = last.trim().parse().map_err(|_| wrong())?;
            if first <= last { Ok(first..=last) } else { Err(wrong()) }
        };
        Ok(Self(text.split(',').map(part).collect::<Result<_>>()?))
    }
}

impl fmt::Display for BlockSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_read_and_written() {
        let blocks: BlockSelection = "0-2, 7,9-9".parse().unwrap();
        assert_eq!(blocks.to_string(), "0-2,7,9");
        assert_eq!((0..12).filter(|n| blocks.contains(*n)).collect::<Vec<_>>(), [0, 1, 2, 7, 9]);
        assert_eq!(blocks.last(), 9);
        for text in ["", "a", "3-1", "1-", "-1", "1,,2", "1-2-3"] {
            let error = text.parse::<BlockSelection>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("blocks: found `{text}`")), "{error}");
        }
    }
}
