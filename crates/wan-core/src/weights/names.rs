//! Name maps as data: one [`Dialect`] per naming that people have on disk.
//!
//! In patterns `{}` stands for one dot-free segment and a final `*` for the rest of the name; what they match
//! is put into the target's `{}` and `*` in order.

use std::collections::BTreeMap;

use super::WeightSet;
use crate::{Result, WeightsError};

/// A naming of one component's tensors.
#[derive(Debug)]
pub struct Dialect {
    /// How messages call it, such as `diffusers`.
    pub name: &'static str,
    /// Names (without prefix) that all exist in this naming and in no other.
    pub markers: &'static [&'static str],
    /// Prefixes that files of this naming may carry on every name. The empty prefix is always tried first.
    pub prefixes: &'static [&'static str],
    /// Rules to the canonical (original Wan) names; the first match counts.
    pub rules: &'static [Rule],
    /// Tensors that the model has no use for.
    pub unused: &'static [Unused],
}

/// Maps one tensor of a file to one canonical tensor, or to several equal parts along its first axis.
#[derive(Debug)]
pub struct Rule {
    /// Pattern of the name in the file, prefix removed.
    pub from: &'static str,
    /// Canonical name; several where the tensor is the row-wise concatenation of them.
    pub to: &'static [&'static str],
}

/// A tensor that is skipped on purpose.
#[derive(Debug)]
pub struct Unused {
    /// Pattern of its name in the file, prefix removed.
    pub name: &'static str,
    /// Why nothing is lost.
    pub why: &'static str,
}

/// The dialect that a set was translated from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    dialect: &'static Dialect,
    prefix: &'static str,
}

impl Dialect {
    /// Whether `set` is in this naming.
    pub fn matches(&self, set: &WeightSet) -> bool {
        self.prefix(set).is_some()
    }

    /// The prefix under which this naming's markers are all present.
    fn prefix(&self, set: &WeightSet) -> Option<&'static str> {
        std::iter::once("")
            .chain(self.prefixes.iter().copied())
            .find(|prefix| self.markers.iter().all(|m| set.get(&format!("{prefix}{m}")).is_some()))
    }

    /// What this naming calls the canonical tensor `name`, prefix aside; `None` if no rule leads to it alone.
    pub fn name_of(&self, name: &str) -> Option<String> {
        self.rules.iter().find_map(|rule| match rule.to {
            [to] => Some(fill(rule.from, &captures(to, name)?)),
            _ => None,
        })
    }
}

impl WeightSet {
    /// Translates to canonical names through the first of `dialects` whose markers are present, and says which.
    ///
    /// Names that no rule knows are kept as they are, so that the loader reports them as unexpected.
    ///
    /// Errors: [`WeightsError::UnknownNaming`] if none fits; `component` is what the file should have been.
    /// FP8 weights are joined with their scales.
    pub fn canonical(
        &self,
        component: &str,
        dialects: &'static [Dialect],
    ) -> Result<(WeightSet, &'static Dialect)> {
        let Some((dialect, prefix)) = dialects.iter().find_map(|d| Some((d, d.prefix(self)?))) else {
            let names: Vec<&str> = self.names().take(3).collect();
            let markers: Vec<String> =
                dialects.iter().map(|d| format!("{} ({})", d.markers.join(", "), d.name)).collect();
            return Err(WeightsError::UnknownNaming {
                label: self.label().to_string(),
                component: component.to_string(),
                found: if names.is_empty() {
                    "no tensors".into()
                } else {
                    format!("{}, …", names.join(", "))
                },
                expected: markers.join(" or "),
            }
            .into());
        };
        let joined = self.with_scales()?;
        let mut unused = joined.unused().to_vec();
        let mut tensors = BTreeMap::new();
        for (full, stored) in &joined.tensors {
            let name = full.strip_prefix(prefix).unwrap_or(full);
            if let Some(entry) = dialect.unused.iter().find(|u| captures(u.name, name).is_some()) {
                unused.push((full.clone(), entry.why));
                continue;
            }
            match dialect.rules.iter().find_map(|r| Some((r, captures(r.from, name)?))) {
                Some((rule, found)) => {
                    for (i, target) in rule.to.iter().enumerate() {
                        let part = if rule.to.len() == 1 {
                            stored.clone()
                        } else {
                            stored.rows(i, rule.to.len())?
                        };
                        tensors.insert(fill(target, &found), part);
                    }
                }
                None => {
                    tensors.insert(name.to_string(), stored.clone());
                }
            }
        }
        let mut set = self.with_tensors(tensors);
        set.naming = Some(Naming { dialect, prefix });
        set.unused = unused;
        Ok((set, dialect))
    }

    /// The name under which the file would have the canonical tensor `name`.
    pub(super) fn file_name(&self, name: &str) -> String {
        let Some(Naming { dialect, prefix }) = self.naming else { return name.to_string() };
        let from = dialect
            .rules
            .iter()
            .find_map(|rule| rule.to.iter().find_map(|to| Some(fill(rule.from, &captures(to, name)?))));
        format!("{prefix}{}", from.as_deref().unwrap_or(name))
    }

    /// The same tensors under other names, for what patterns cannot say: `rename` gives the new name, or `None`
    /// to keep the old one.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> WeightSet {
        let name = |old: &String| rename(old).unwrap_or_else(|| old.clone());
        self.with_tensors(self.tensors.iter().map(|(old, stored)| (name(old), stored.clone())).collect())
    }
}

/// What the wildcards of `pattern` stand for in `name`, if it matches.
fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let mut found = Vec::new();
    let mut rest = name;
    let mut segments = pattern.split('.').peekable();
    while let Some(want) = segments.next() {
        if want == "*" && segments.peek().is_none() {
            found.push(rest);
            return (!rest.is_empty()).then_some(found);
        }
        let (segment, tail) = rest.split_once('.').map_or((rest, None), |(s, t)| (s, Some(t)));
        match want {
            "{}" if !segment.is_empty() => found.push(segment),
            _ if want == segment => {}
            _ => return None,
        }
        match (segments.peek(), tail) {
            (None, None) => return Some(found),
            (Some(_), Some(tail)) => rest = tail,
            _ => return None,
        }
    }
    None
}

/// Puts what was matched into the wildcards of `target`, in order.
fn fill(target: &str, found: &[&str]) -> String {
    let mut values = found.iter();
    target
        .split('.')
        .map(|s| if s == "{}" || s == "*" { values.next().copied().unwrap_or_default() } else { s })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stored;
    use candle_core::{Device, Tensor};

    #[test]
    fn patterns_match_whole_names() {
        assert_eq!(
            captures("blocks.{}.attn1.to_q.{}", "blocks.12.attn1.to_q.bias"),
            Some(vec!["12", "bias"])
        );
        assert_eq!(captures("head.*", "head.0.gamma"), Some(vec!["0.gamma"]));
        assert_eq!(captures("norm.weight", "norm.weight"), Some(vec![]));
        for (pattern, name) in [("a.b", "a"), ("a.b", "a.b.c"), ("a.{}", "a"), ("a.*", "a."), ("a.{}", "b.c")]
        {
            assert_eq!(captures(pattern, name), None, "{pattern} {name}");
        }
        assert_eq!(fill("x.{}.y.*", &["3", "w.b"]), "x.3.y.w.b");
    }

    #[test]
    fn a_fused_tensor_splits_by_rows_and_unused_ones_vanish() {
        let t = |name: &str, n: usize| {
            Stored::from_tensor(name, &Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap()).unwrap()
        };
        let set = WeightSet::from_tensors("f", [t("m.v.qkv.bias", 6), t("m.log_scale", 1), t("m.other", 1)]);
        const DIALECTS: &[Dialect] = &[Dialect {
            name: "fused",
            markers: &["v.qkv.bias"],
            prefixes: &["m."],
            rules: &[
                Rule { from: "v.qkv.{}", to: &["q.{}", "k.{}", "v.{}"] },
                Rule { from: "out.{}.proj.{}", to: &["o.{}.{}"] },
            ],
            unused: &[Unused { name: "log_scale", why: "belongs to the text tower" }],
        }];
        let (canonical, dialect) = set.canonical("thing", DIALECTS).unwrap();
        assert_eq!(dialect.name_of("o.3.bias").as_deref(), Some("out.3.proj.bias"));
        assert_eq!(dialect.name_of("q.bias"), None);
        assert_eq!(dialect.name, "fused");
        assert_eq!(canonical.names().collect::<Vec<_>>(), ["k.bias", "other", "q.bias", "v.bias"]);
        assert_eq!(canonical.get("k.bias").unwrap().to_f32_vec().unwrap(), [2.0, 3.0]);
        let longer = canonical.renamed(|n| n.strip_prefix("k.").map(|rest| format!("key.{rest}")));
        assert_eq!(longer.names().collect::<Vec<_>>(), ["key.bias", "other", "q.bias", "v.bias"]);
        assert_eq!(longer.get("key.bias").unwrap().to_f32_vec().unwrap(), [2.0, 3.0]);
        let error = canonical.canonical("thing", DIALECTS).unwrap_err().to_string();
        assert!(error.contains("not a thing in a known naming"), "{error}");
    }
}
