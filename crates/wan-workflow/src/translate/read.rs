//! Typed access to a graph that has been validated.

use serde_json::Value;

use super::{Refusal, Result};
use crate::catalog::Catalog;
use crate::graph::Graph;
use crate::job::ModelFile;
use crate::table::{Input, Kind};

/// A validated graph and what it refers to.
pub(super) struct Reader<'a> {
    pub graph: &'a Graph,
    pub catalog: &'a dyn Catalog,
}

/// An output of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub id: String,
    pub class: &'static str,
    pub slot: usize,
}

impl<'a> Reader<'a> {
    fn input(&self, id: &str, name: &str) -> Option<&'static Input> {
        self.graph.class(id)?.input(name)
    }

    fn value(&self, id: &str, name: &str) -> Option<&'a Value> {
        self.graph.value(id, self.input(id, name)?)
    }

    /// What is wrong with an input of a node.
    pub fn refuse<T>(&self, id: &str, input: &str, message: impl Into<String>) -> Result<T> {
        Err(Refusal { node: id.to_owned(), input: input.to_owned(), message: message.into() })
    }

    pub fn text(&self, id: &str, name: &str) -> &'a str {
        let default = match self.input(id, name).map(|input| input.kind) {
            Some(Kind::Text { default, .. } | Kind::Choice { default, .. }) => default,
            _ => "",
        };
        self.value(id, name).and_then(Value::as_str).unwrap_or(default)
    }

    pub fn int(&self, id: &str, name: &str) -> u64 {
        let default = match self.input(id, name).map(|input| input.kind) {
            Some(Kind::Int { default, .. }) => u64::try_from(default).unwrap_or(0),
            _ => 0,
        };
        self.value(id, name).and_then(Value::as_u64).unwrap_or(default)
    }

    pub fn signed(&self, id: &str, name: &str) -> i64 {
        let default = match self.input(id, name).map(|input| input.kind) {
            Some(Kind::Int { default, .. }) => default,
            _ => 0,
        };
        self.value(id, name).and_then(Value::as_i64).unwrap_or(default)
    }

    pub fn size(&self, id: &str, name: &str) -> usize {
        usize::try_from(self.int(id, name)).unwrap_or(usize::MAX)
    }

    pub fn float(&self, id: &str, name: &str) -> f64 {
        let default = match self.input(id, name).map(|input| input.kind) {
            Some(Kind::Float { default, .. }) => default,
            _ => 0.0,
        };
        self.value(id, name).and_then(Value::as_f64).unwrap_or(default)
    }

    pub fn boolean(&self, id: &str, name: &str) -> bool {
        let default = matches!(self.input(id, name).map(|input| input.kind), Some(Kind::Bool(true)));
        self.value(id, name).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The listed file that an input names.
    pub fn model(&self, id: &str, name: &str) -> Result<ModelFile> {
        let Some(Kind::Model(folders)) = self.input(id, name).map(|input| input.kind) else {
            return self.refuse(id, name, "found no model, expected the name of one");
        };
        let wanted = self.text(id, name);
        let found = folders.iter().find_map(|folder| {
            Some(ModelFile { folder: *folder, name: self.catalog.find_model(*folder, wanted)? })
        });
        found.map_or_else(|| self.refuse(id, name, format!("found no file {wanted}")), Ok)
    }

    /// Where a link comes from, if there is one.
    pub fn linked(&self, id: &str, name: &str) -> Option<End> {
        let (source, slot) = self.graph.link(id, self.input(id, name)?)?;
        let class = self.graph.class(&source)?.name;
        Some(End { id: source, class, slot })
    }

    /// Where a link comes from that must be there.
    pub fn source(&self, id: &str, name: &str) -> Result<End> {
        match self.linked(id, name) {
            Some(end) => Ok(end),
            None => self.refuse(id, name, "nothing is linked, but the video cannot be made without it"),
        }
    }
}
