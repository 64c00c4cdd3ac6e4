//! Executes a parsed template: Go's `text/template` with the option `missingkey=zero`.
//!
//! `at` remembers the node that is being worked on, in the same places as Go does, because error
//! texts quote it.

use std::fmt::Display;
use std::sync::Arc;

use super::fmt::{quote, sprint};
use super::node::{Branch, Call, Command, List, Node, Number, Operand, Pipe, Term, Tree};
use super::value::{Function, Type, VALUE_DEPTH_MAX, Value};
use super::{Context, DEPTH_MAX, OUTPUT_BYTES_MAX, STEPS_MAX, TemplateError, TemplateSet};

/// Executes the template `name`; also returns what was written before an error.
pub(super) fn execute(
    set: &TemplateSet,
    name: &str,
    data: &Value,
    ctx: &Context<'_>,
) -> (String, Result<(), TemplateError>) {
    let Some(tree) = set.trees.get(name) else {
        let name = quote(name);
        let message = format!("template: no template {name} associated with template {name}");
        return (String::new(), Err(TemplateError { message }));
    };
    let mut executor = Executor {
        set,
        ctx,
        tree,
        vars: vec![(Arc::from("$"), data.clone())],
        out: String::new(),
        at: None,
        depth: 0,
        steps: 0,
    };
    match executor.list(data, &tree.root) {
        Ok(()) | Err(Halt::Break | Halt::Continue) => (executor.out, Ok(())),
        Err(Halt::Fail(error)) => (executor.out, Err(error)),
    }
}

/// `and` and `or` evaluate their arguments themselves.
pub(super) fn is_special(function: &str) -> bool {
    matches!(function, "and" | "or")
}

/// Why execution of a list ends early.
enum Halt {
    Fail(TemplateError),
    Break,
    Continue,
}

struct Executor<'a> {
    set: &'a TemplateSet,
    ctx: &'a Context<'a>,
    tree: &'a Tree,
    vars: Vec<(Arc<str>, Value)>,
    out: String,
    at: Option<(usize, &'a dyn Display)>,
    depth: usize,
    steps: usize,
}

/// The arguments of a call as they are written, and the value that the pipeline hands on.
#[derive(Clone, Copy)]
struct Args<'a, 'v> {
    written: &'a [Operand],
    last: Option<&'v Value>,
}

impl Args<'_, '_> {
    const NONE: Self = Self { written: &[], last: None };

    fn is_empty(self) -> bool {
        self.written.is_empty() && self.last.is_none()
    }
}

impl<'a> Executor<'a> {
    fn fail<T>(&self, message: &str) -> Result<T, Halt> {
        let name = self.tree.name.replace('%', "%%");
        let message = match self.at {
            None => format!("template: {name}: {message}"),
            Some((position, node)) => {
                let location = self.tree.location(position);
                let name = quote(&name);
                format!("template: {location}: executing {name} at <{node}>: {message}")
            }
        };
        Err(Halt::Fail(TemplateError { message }))
    }

    fn at(&mut self, position: usize, node: &'a dyn Display) {
        self.at = Some((position, node));
    }

    fn step(&mut self) -> Result<(), Halt> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.fail(&format!("exceeded maximum number of steps ({STEPS_MAX})"));
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Halt> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(&format!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        self.step()
    }

    fn write(&mut self, text: &str) -> Result<(), Halt> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return self.fail(&format!("output is longer than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, list: &'a List) -> Result<(), Halt> {
        for node in &list.nodes {
            self.node(dot, node)?;
        }
        Ok(())
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Result<(), Halt> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text),
            Node::Action(pipe) => {
                self.at(pipe.position, node);
                let value = self.pipeline(dot, pipe)?;
                if !pipe.declarations.is_empty() {
                    return Ok(());
                }
                self.at(pipe.position, node);
                let text = match &value {
                    Value::Nil => "<no value>".to_owned(),
                    Value::Str(text) => return self.write(text),
                    value => super::fmt::printed(value),
                };
                self.write(&text)
            }
            Node::If(branch) => self.if_or_with(dot, branch, node, false),
            Node::With(branch) => self.if_or_with(dot, branch, node, true),
            Node::Range(branch) => self.range(dot, branch, node),
            Node::Template(call) => self.template(dot, call),
            Node::Break => Err(Halt::Break),
            Node::Continue => Err(Halt::Continue),
        }
    }

    fn if_or_with(
        &mut self,
        dot: &Value,
        branch: &'a Branch,
        node: &'a Node,
        is_with: bool,
    ) -> Result<(), Halt> {
        self.at(branch.position, node);
        self.enter()?;
        let mark = self.vars.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        if value.truth() {
            self.list(if is_with { &value } else { dot }, &branch.list)?;
        } else if let Some(list) = &branch.else_list {
            self.list(dot, list)?;
        }
        self.vars.truncate(mark);
        self.depth -= 1;
        Ok(())
    }

    fn range(&mut self, dot: &Value, branch: &'a Branch, node: &'a Node) -> Result<(), Halt> {
        self.at(branch.position, node);
        self.enter()?;
        let (mark, depth) = (self.vars.len(), self.depth);
        let value = self.pipeline(dot, &branch.pipe)?;
        let ran = match self.iterate(branch, &value) {
            Err(Halt::Break) => true,
            other => other?,
        };
        self.vars.truncate(mark);
        self.depth = depth;
        if let Some(list) = branch.else_list.as_ref().filter(|_| !ran) {
            self.list(dot, list)?;
        }
        self.vars.truncate(mark);
        self.depth = depth - 1;
        Ok(())
    }

    /// Runs the body for each element; whether there was any.
    fn iterate(&mut self, branch: &'a Branch, value: &Value) -> Result<bool, Halt> {
        match value {
            Value::Nil => Ok(false),
            Value::List(list) => {
                for (index, item) in list.items.iter().enumerate() {
                    self.iteration(branch, Value::Int(index as i64), item)?;
                }
                Ok(!list.items.is_empty())
            }
            Value::Map(map) => {
                for (key, item) in map.entries.iter() {
                    self.iteration(branch, Value::Str(Arc::clone(key)), item)?;
                }
                Ok(!map.entries.is_empty())
            }
            Value::Int(_) | Value::Int64(_) | Value::Uint(_) | Value::Duration(_) => {
                if branch.pipe.declarations.len() > 1 {
                    let value = sprint(std::slice::from_ref(value));
                    let message =
                        format!("can't use {value} to iterate over more than one variable");
                    return self.fail(&message);
                }
                let count = match value {
                    Value::Uint(count) => i64::try_from(*count).unwrap_or(i64::MAX),
                    value => value.as_int().unwrap_or(0),
                };
                for number in 0..count {
                    self.iteration(branch, Value::Nil, &Value::Int(number))?;
                }
                Ok(count > 0)
            }
            value => self.fail(&format!("range can't iterate over {}", super::fmt::printed(value))),
        }
    }

    fn iteration(&mut self, branch: &'a Branch, index: Value, item: &Value) -> Result<(), Halt> {
        self.step()?;
        let pipe = &branch.pipe;
        let values = match pipe.declarations.len() {
            0 => vec![],
            1 => vec![item.clone()],
            _ => vec![index, item.clone()],
        };
        if pipe.is_assign {
            for (name, value) in pipe.declarations.iter().zip(values) {
                self.assign(name, value)?;
            }
        } else {
            // The pipeline has pushed its variables; they are the topmost.
            let first = self.vars.len() - values.len();
            for (variable, value) in self.vars[first..].iter_mut().zip(values) {
                variable.1 = value;
            }
        }
        let (mark, depth) = (self.vars.len(), self.depth);
        let done = self.list(item, &branch.list);
        self.vars.truncate(mark);
        self.depth = depth;
        match done {
            Err(Halt::Continue) => Ok(()),
            done => done,
        }
    }

    fn template(&mut self, dot: &Value, call: &'a Call) -> Result<(), Halt> {
        self.at(call.position, call);
        self.enter()?;
        let Some(tree) = self.set.trees.get(&call.name) else {
            return self.fail(&format!("template {} not defined", quote(&call.name)));
        };
        let dot = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Nil,
        };
        let vars = std::mem::replace(&mut self.vars, vec![(Arc::from("$"), dot.clone())]);
        let caller = std::mem::replace(&mut self.tree, tree);
        self.list(&dot, &tree.root)?;
        (self.vars, self.tree) = (vars, caller);
        self.depth -= 1;
        Ok(())
    }

    fn variable(&self, name: &str) -> Result<Value, Halt> {
        match self.vars.iter().rev().find(|(own, _)| **own == *name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fail(&format!("undefined variable: {name}")),
        }
    }

    fn assign(&mut self, name: &str, value: Value) -> Result<(), Halt> {
        match self.vars.iter_mut().rev().find(|(own, _)| **own == *name) {
            Some(variable) => variable.1 = value,
            None => return self.fail(&format!("undefined variable: {name}")),
        }
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'a Pipe) -> Result<Value, Halt> {
        self.at(pipe.position, pipe);
        self.enter()?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value.as_ref())?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.declarations {
            if pipe.is_assign {
                self.assign(name, value.clone())?;
            } else {
                self.vars.push((Arc::clone(name), value.clone()));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(
        &mut self,
        dot: &Value,
        command: &'a Command,
        last: Option<&Value>,
    ) -> Result<Value, Halt> {
        let Some((first, written)) = command.args.split_first() else {
            return self.fail("empty command");
        };
        let args = Args { written, last };
        match &first.term {
            Term::Field(names) => {
                self.at(first.position, first);
                self.field_chain(dot, dot.clone(), first, names, args)
            }
            Term::Chain(..) => self.chain(dot, first, args),
            Term::Variable(..) => self.variable_chain(dot, first, args),
            Term::Identifier(name) => {
                self.at(first.position, first);
                self.function(dot, name, (command.position, command), args)
            }
            Term::Pipe(pipe) => {
                self.not_a_function(first, args)?;
                self.pipeline(dot, pipe)
            }
            Term::Nil => {
                self.at(first.position, first);
                self.not_a_function(first, args)?;
                self.fail("nil is not a command")
            }
            Term::Bool(_) | Term::Dot | Term::Number(_) | Term::String(..) => {
                self.at(first.position, first);
                self.not_a_function(first, args)?;
                self.literal(dot, first)
            }
        }
    }

    fn not_a_function(&self, first: &Operand, args: Args<'_, '_>) -> Result<(), Halt> {
        if args.is_empty() {
            return Ok(());
        }
        self.fail(&format!("can't give argument to non-function {first}"))
    }

    /// The value of a literal or the dot.
    fn literal(&self, dot: &Value, operand: &Operand) -> Result<Value, Halt> {
        match &operand.term {
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Dot => Ok(dot.clone()),
            Term::String(_, text) => Ok(Value::Str(Arc::clone(text))),
            Term::Number(number) => self.constant(number),
            _ => self.fail(&format!("can't evaluate command {}", quote(&operand.to_string()))),
        }
    }

    /// A number where any type will do.
    fn constant(&self, number: &Number) -> Result<Value, Halt> {
        let text = &number.text;
        let plain = text.trim_start_matches(['+', '-']);
        let hexadecimal = plain.starts_with("0x") || plain.starts_with("0X");
        let integer = (hexadecimal && !text.contains(['p', 'P'])) || text.starts_with('\'');
        match (number.float, number.int) {
            (Some(float), _) if !integer && text.contains(['.', 'e', 'E', 'p', 'P']) => {
                Ok(Value::Float(float))
            }
            (_, Some(int)) => Ok(Value::Int(int)),
            _ if number.uint.is_some() => self.fail(&format!("{text} overflows int")),
            _ => Ok(Value::Nil),
        }
    }

    fn chain(
        &mut self,
        dot: &Value,
        chain: &'a Operand,
        args: Args<'a, '_>,
    ) -> Result<Value, Halt> {
        self.at(chain.position, chain);
        let Term::Chain(inner, names) = &chain.term else {
            return self.fail("internal error: no chain");
        };
        let value = self.argument(dot, Type::Any, inner)?;
        self.field_chain(dot, value, chain, names, args)
    }

    fn variable_chain(
        &mut self,
        dot: &Value,
        operand: &'a Operand,
        args: Args<'a, '_>,
    ) -> Result<Value, Halt> {
        self.at(operand.position, operand);
        let Term::Variable(name, names) = &operand.term else {
            return self.fail("internal error: no variable");
        };
        let value = self.variable(name)?;
        if names.is_empty() {
            self.not_a_function(operand, args)?;
            return Ok(value);
        }
        self.field_chain(dot, value, operand, names, args)
    }

    fn field_chain(
        &mut self,
        dot: &Value,
        receiver: Value,
        node: &'a Operand,
        names: &'a [Arc<str>],
        args: Args<'a, '_>,
    ) -> Result<Value, Halt> {
        let mut value = receiver;
        for (index, name) in names.iter().enumerate() {
            if index > 0 && matches!(value, Value::Nil) {
                return self.fail(&format!("nil pointer evaluating interface {{}}.{name}"));
            }
            let args = if index + 1 == names.len() { args } else { Args::NONE };
            value = self.field(dot, name, node, args, &value)?;
        }
        Ok(value)
    }

    fn field(
        &mut self,
        dot: &Value,
        name: &str,
        node: &'a Operand,
        args: Args<'a, '_>,
        receiver: &Value,
    ) -> Result<Value, Halt> {
        if let Value::Nil = receiver {
            return Ok(Value::Nil);
        }
        if let Some(method) = receiver.method(name) {
            let receiver = vec![receiver.clone()];
            return self.call(dot, method, name, (node.position, node), args, receiver);
        }
        match receiver {
            Value::Struct(own) => {
                if let Some(value) = own.field(name) {
                    if !args.is_empty() {
                        let message =
                            format!("{name} has arguments but cannot be invoked as function");
                        return self.fail(&message);
                    }
                    return Ok(value.clone());
                }
            }
            Value::Map(map) => {
                if !args.is_empty() {
                    return self.fail(&format!("{name} is not a method but has arguments"));
                }
                return Ok(map.get_or_zero(name));
            }
            _ => {}
        }
        self.fail(&format!("can't evaluate field {name} in type {}", receiver.type_name()))
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        node: (usize, &'a dyn Display),
        args: Args<'a, '_>,
    ) -> Result<Value, Halt> {
        if is_special(name) {
            return self.and_or(dot, name, args);
        }
        match self.set.functions.get(name) {
            Some(function) => self.call(dot, *function, name, node, args, Vec::new()),
            None => self.fail(&format!("{} is not a defined function", quote(name))),
        }
    }

    /// The first argument that decides, else the last one.
    fn and_or(&mut self, dot: &Value, name: &str, args: Args<'a, '_>) -> Result<Value, Halt> {
        if args.is_empty() {
            return self.fail(&format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        let mut value = Value::Nil;
        for operand in args.written {
            value = self.argument(dot, Type::Any, operand)?;
            if value.truth() == (name == "or") {
                return Ok(value);
            }
        }
        Ok(args.last.cloned().unwrap_or(value))
    }

    /// Calls a function or, with the receiver as first of `values`, a method.
    fn call(
        &mut self,
        dot: &Value,
        function: Function,
        name: &str,
        node: (usize, &'a dyn Display),
        args: Args<'a, '_>,
        mut values: Vec<Value>,
    ) -> Result<Value, Halt> {
        self.step()?;
        let (fixed, written) = (function.params.len(), args.written.len());
        let count = written + usize::from(args.last.is_some());
        if function.rest.is_some() && count < fixed {
            let message =
                format!("wrong number of args for {name}: want at least {fixed} got {written}");
            return self.fail(&message);
        }
        if function.rest.is_none() && count != fixed {
            return self
                .fail(&format!("wrong number of args for {name}: want {fixed} got {count}"));
        }
        let param = |index: usize| {
            function.params.get(index).copied().or(function.rest).unwrap_or(Type::Any)
        };
        for (index, operand) in args.written.iter().enumerate() {
            values.push(self.argument(dot, param(index), operand)?);
        }
        if let Some(last) = args.last {
            values.push(self.checked(last.clone(), param(written))?);
        }
        if name == "call" {
            // Functions are no values here; Go's complaint names what was called.
            let called = args.written.first().map_or_else(String::new, ToString::to_string);
            values.insert(0, Value::text(called));
        }
        let result = match (function.call)(self.ctx, &values) {
            Ok(result) => result,
            Err(message) => {
                self.at = Some(node);
                return self.fail(&format!("error calling {name}: {message}"));
            }
        };
        if result.as_str().is_some_and(|text| text.len() > OUTPUT_BYTES_MAX) {
            return self.fail(&format!("{name} makes more than {OUTPUT_BYTES_MAX} bytes"));
        }
        if result.depth() > VALUE_DEPTH_MAX {
            return self.fail(&format!("{name} nests values deeper than {VALUE_DEPTH_MAX}"));
        }
        Ok(result)
    }

    /// An argument of a call, for a parameter of that type.
    fn argument(&mut self, dot: &Value, param: Type, operand: &'a Operand) -> Result<Value, Halt> {
        self.at(operand.position, operand);
        self.step()?;
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil if param.takes_nil() => return Ok(Value::Nil),
            Term::Nil => return self.fail(&format!("cannot assign nil to {}", param.name())),
            Term::Field(names) => self.field_chain(dot, dot.clone(), operand, names, Args::NONE)?,
            Term::Variable(..) => self.variable_chain(dot, operand, Args::NONE)?,
            Term::Chain(..) => self.chain(dot, operand, Args::NONE)?,
            Term::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Term::Identifier(name) => {
                self.function(dot, name, (operand.position, operand), Args::NONE)?
            }
            Term::Bool(_) | Term::Number(_) | Term::String(..) => {
                return self.literal_argument(dot, param, operand);
            }
        };
        self.checked(value, param)
    }

    /// A literal takes the type of the parameter: `1` may be a float or a duration.
    fn literal_argument(&self, dot: &Value, param: Type, operand: &Operand) -> Result<Value, Halt> {
        let number = match &operand.term {
            Term::Number(number) => Some(number),
            _ => None,
        };
        let wanted = match param {
            Type::Any => return self.literal(dot, operand),
            Type::Bool => match operand.term {
                Term::Bool(value) => return Ok(Value::Bool(value)),
                _ => "bool",
            },
            Type::Str => match &operand.term {
                Term::String(_, text) => return Ok(Value::Str(Arc::clone(text))),
                _ => "string",
            },
            Type::Int | Type::Duration => match number.and_then(|number| number.int) {
                Some(int) if matches!(param, Type::Int) => return Ok(Value::Int(int)),
                Some(int) => return Ok(Value::Duration(int)),
                None => "integer",
            },
            Type::Float => match number.and_then(|number| number.float) {
                Some(float) => return Ok(Value::Float(float)),
                None => "float",
            },
            Type::Time | Type::Strings | Type::AnyList | Type::Named(_) => {
                let param = param.name();
                return self.fail(&format!("can't handle {operand} for arg of type {param}"));
            }
        };
        self.fail(&format!("expected {wanted}; found {operand}"))
    }

    /// A value, if Go would assign it to a parameter of that type.
    fn checked(&self, value: Value, param: Type) -> Result<Value, Halt> {
        match &value {
            Value::Nil if param.takes_nil() => Ok(value),
            Value::Nil => self.fail(&format!("invalid value; expected {}", param.name())),
            _ if param.takes(&value) => Ok(value),
            value => self.fail(&format!(
                "wrong type for value; expected {}; got {}",
                param.name(),
                value.type_name()
            )),
        }
    }
}
