//! Go text/template for alert texts: lexer, parser, executor, Go's fmt and time layouts.
//!
//! [`prometheus`] expands labels and annotations of rules, [`notification`] the texts of
//! notifications, the latter also as HTML whose values are escaped by context. A [`TemplateSet`] holds parsed templates under their names; executing one is a
//! pure function of its data and a [`Context`], within [`OUTPUT_BYTES_MAX`], [`STEPS_MAX`] and
//! [`DEPTH_MAX`]. Error texts and their positions are Go's.

use std::collections::BTreeMap;
use std::sync::Arc;

mod exec;
pub mod fmt;
mod functions;
mod html;
mod json;
mod lexer;
mod node;
pub mod notification;
mod notification_functions;
mod parser;
pub mod prometheus;
mod text_functions;
pub mod time_layout;
mod time_methods;
pub mod value;

use node::Tree;
use value::{Function, Value};

/// Longest text that a template makes.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Nodes and function calls that one execution may take: `{{ range 1000000000 }}` ends.
pub const STEPS_MAX: usize = 1_000_000;
/// How deep templates, controls and parentheses may nest while executing.
pub const DEPTH_MAX: usize = 400;

/// Why a template does not parse or execute, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The whole text, as `template: NAME:1:16: executing "NAME" at <.X>: …`.
    pub message: String,
}

/// What functions may ask besides their arguments.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// Answers `query`.
    pub query: Option<&'a prometheus::QueryFn<'a>>,
    /// Address of this server for people.
    pub external_url: &'a str,
    /// Labels that the route adds, for `routeLabels`.
    pub route_labels: Option<&'a crate::model::labels::Labels>,
}

/// The functions that templates of a set may call, by name.
pub(super) type Functions = BTreeMap<&'static str, Function>;

/// Parsed templates that call each other by name.
#[derive(Clone)]
pub struct TemplateSet {
    functions: Arc<Functions>,
    trees: BTreeMap<Arc<str>, Arc<Tree>>,
}

impl std::fmt::Debug for TemplateSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.trees.keys()).finish()
    }
}

impl TemplateSet {
    /// An empty set whose templates may call these functions.
    fn new(functions: Arc<Functions>) -> Self {
        Self { functions, trees: BTreeMap::new() }
    }

    /// Adds the template `name` and those that its text defines. A later template replaces an
    /// earlier one of the same name, unless it is blank.
    ///
    /// # Errors
    /// The text does not parse; the set is as before.
    pub fn parse(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        let known =
            |function: &str| exec::is_special(function) || self.functions.contains_key(function);
        for tree in parser::parse(name, text, &known)? {
            if tree.root.is_blank() && self.trees.contains_key(&tree.name) {
                continue;
            }
            self.trees.insert(Arc::clone(&tree.name), Arc::new(tree));
        }
        Ok(())
    }

    /// Executes a template. Also returns what was written before an error.
    fn execute(
        &self,
        name: &str,
        data: &Value,
        ctx: &Context<'_>,
    ) -> (String, Result<(), TemplateError>) {
        exec::execute(self, name, data, ctx)
    }
}

#[cfg(test)]
mod tests;
