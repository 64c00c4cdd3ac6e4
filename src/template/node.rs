//! The parsed template. Nodes print as Go prints them, because error texts quote them.

use std::fmt;
use std::sync::Arc;

use super::fmt::quote;

/// One named template.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// What `{{ template }}` calls it.
    pub name: Arc<str>,
    /// The file or text that it was read from, for error texts.
    pub parse_name: Arc<str>,
    /// All of that file, to find lines.
    pub text: Arc<str>,
    pub root: List,
}

impl Tree {
    /// `FILE:LINE:COLUMN` of a position.
    pub fn location(&self, position: usize) -> String {
        let before = self.text.get(..position).unwrap_or(&self.text);
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(position, |newline| position - newline - 1);
        format!("{}:{line}:{column}", self.parse_name)
    }
}

/// Nodes one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub nodes: Vec<Node>,
}

impl List {
    /// Nothing but white space.
    pub fn is_blank(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
    }
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(Arc<str>),
    /// `{{ pipeline }}`
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Call),
    Break,
    Continue,
}

/// `if`, `with` and `range`.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub position: usize,
    pub pipe: Pipe,
    pub list: List,
    pub else_list: Option<List>,
}

/// `{{ template "name" pipeline }}`
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub position: usize,
    pub name: Arc<str>,
    pub pipe: Option<Pipe>,
}

/// Commands, each of which gets the value of the one before.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    pub position: usize,
    /// `=` rather than `:=`
    pub is_assign: bool,
    pub declarations: Vec<Arc<str>>,
    pub commands: Vec<Command>,
}

/// An operand, or a function and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub position: usize,
    pub args: Vec<Operand>,
}

/// A word of a command.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub position: usize,
    pub term: Term,
}

/// What an operand is.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    /// As written, and its value.
    String(Arc<str>, Arc<str>),
    /// `.A.B`
    Field(Vec<Arc<str>>),
    /// `$x.A.B`
    Variable(Arc<str>, Vec<Arc<str>>),
    /// Fields of a parenthesised pipeline or of a function's result.
    Chain(Box<Operand>, Vec<Arc<str>>),
    Identifier(Arc<str>),
    Pipe(Pipe),
}

/// A number as written, and what it may stand for.
#[derive(Clone, Debug)]
pub(super) struct Number {
    pub text: Arc<str>,
    pub int: Option<i64>,
    pub uint: Option<u64>,
    pub float: Option<f64>,
}

fn joined<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.nodes, "")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Action(pipe) => write!(f, "{{{{{pipe}}}}}"),
            Self::If(branch) => branch.print(f, "if"),
            Self::With(branch) => branch.print(f, "with"),
            Self::Range(branch) => branch.print(f, "range"),
            Self::Template(call) => call.fmt(f),
            Self::Break => f.write_str("{{break}}"),
            Self::Continue => f.write_str("{{continue}}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

impl Branch {
    fn print(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        write!(f, "{{{{{name} {}}}}}{}", self.pipe, self.list)?;
        if let Some(list) = &self.else_list {
            write!(f, "{{{{else}}}}{list}")?;
        }
        f.write_str("{{end}}")
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.declarations, ", ")?;
        if !self.declarations.is_empty() {
            f.write_str(if self.is_assign { " = " } else { " := " })?;
        }
        joined(f, &self.commands, " | ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.args, " ")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, names: &[Arc<str>]| {
            names.iter().try_for_each(|name| write!(f, ".{name}"))
        };
        match &self.term {
            Term::Bool(value) => value.fmt(f),
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Number(number) => f.write_str(&number.text),
            Term::String(quoted, _) => f.write_str(quoted),
            Term::Field(names) => fields(f, names),
            Term::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            Term::Chain(operand, names) => {
                operand.fmt(f)?;
                fields(f, names)
            }
            Term::Identifier(name) => f.write_str(name),
            Term::Pipe(pipe) => write!(f, "({pipe})"),
        }
    }
}
