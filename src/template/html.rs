//! Contextual escaping of HTML templates, as Go's `html/template` does it: before execution each
//! action gets escapers at its end, by where in the page its output lands.
//!
//! Following Go, HTML comments are left out of the page, and branches must end in the same
//! context. Unlike Go, an expression in a JavaScript template literal is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::node::{Branch, Call, Command, List, Node, Operand, Pipe, Term, Tree};
use super::{TemplateError, TemplateSet};
use context::{Delim, HtmlContext, State, UrlPart};

mod context;
pub(super) mod escape;
mod transition;

/// Nodes that may be looked at: nested ranges are looked at twice on each level.
const NODES_MAX: usize = 200_000;
/// Templates that may call each other on one path.
const CALLS_MAX: usize = 100;

/// The set with the template `name` and all that it calls escaped for an HTML page.
pub(super) fn escaped(set: &TemplateSet, name: &str) -> Result<TemplateSet, TemplateError> {
    let mut escaper = Escaper {
        set,
        output: BTreeMap::new(),
        called: BTreeSet::new(),
        trees: BTreeMap::new(),
        loops: Vec::new(),
        nodes: 0,
        calls: 0,
    };
    let (ctx, _) = escaper.template(HtmlContext::TEXT, name)?;
    if ctx.state != State::Text {
        return fail_in(name, &format!("ends in a non-text context: {ctx}"));
    }
    let mut set = set.clone();
    set.trees.extend(escaper.trees);
    Ok(set)
}

fn fail_in<T>(name: &str, message: &str) -> Result<T, TemplateError> {
    let colon = if name.is_empty() { "" } else { ":" };
    Err(TemplateError { message: format!("html/template:{name}{colon} {message}") })
}

/// With the place of a node.
fn fail_at<T>(tree: &Tree, position: usize, message: &str) -> Result<T, TemplateError> {
    let location = tree.location(position);
    Err(TemplateError { message: format!("html/template:{location}: {message}") })
}

struct Escaper<'a> {
    set: &'a TemplateSet,
    /// By the escaped template's name: the context behind it, supposed while it is worked on.
    output: BTreeMap<String, HtmlContext>,
    /// Templates that were called while they were worked on.
    called: BTreeSet<String>,
    /// Escaped templates.
    trees: BTreeMap<Arc<str>, Arc<Tree>>,
    /// For each range around: the contexts at its `break` and `continue`.
    loops: Vec<Vec<HtmlContext>>,
    nodes: usize,
    calls: usize,
}

impl Escaper<'_> {
    /// Escapes a template for a context; the context behind it and its name for this context.
    fn template(
        &mut self,
        ctx: HtmlContext,
        name: &str,
    ) -> Result<(HtmlContext, String), TemplateError> {
        let mangled = if ctx.state == State::Text {
            name.to_owned()
        } else {
            format!("{name}$htmltemplate_{ctx}")
        };
        self.called.insert(mangled.clone());
        if let Some(output) = self.output.get(&mangled) {
            return Ok((*output, mangled));
        }
        let Some(tree) = self.set.trees.get(name).cloned() else {
            return fail_in("", &format!("no such template {}", super::fmt::quote(name)));
        };
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return fail_in(name, &format!("templates call each other deeper than {CALLS_MAX}"));
        }
        let loops = std::mem::take(&mut self.loops);
        let output = self.body(ctx, &tree, &mangled)?;
        self.loops = loops;
        self.calls -= 1;
        Ok((output, mangled))
    }

    /// Finds the context behind a template that may call itself: first supposed to be the one
    /// before it, then the one found so.
    fn body(
        &mut self,
        ctx: HtmlContext,
        tree: &Tree,
        mangled: &str,
    ) -> Result<HtmlContext, TemplateError> {
        let mut supposed = ctx;
        for _ in 0..2 {
            self.output.insert(mangled.to_owned(), supposed);
            self.called.remove(mangled);
            let (output, root) = self.list(ctx, &tree.root, tree)?;
            if output == supposed || !self.called.contains(mangled) {
                self.output.insert(mangled.to_owned(), output);
                let name: Arc<str> = Arc::from(mangled);
                let tree = Tree { name: Arc::clone(&name), root, ..tree.clone() };
                self.trees.insert(name, Arc::new(tree));
                return Ok(output);
            }
            supposed = output;
        }
        fail_in("", &format!("cannot compute output context for template {mangled}"))
    }

    fn list(
        &mut self,
        ctx: HtmlContext,
        list: &List,
        tree: &Tree,
    ) -> Result<(HtmlContext, List), TemplateError> {
        let (mut ctx, mut nodes) = (ctx, Vec::with_capacity(list.nodes.len()));
        for node in &list.nodes {
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return fail_in(&tree.name, "too large to escape");
            }
            let node = match node {
                Node::Text(text) => {
                    let escaped;
                    (ctx, escaped) = escape_text(ctx, text, &tree.name)?;
                    Node::Text(escaped.into())
                }
                Node::Action(pipe) => {
                    let mut pipe = pipe.clone();
                    ctx = escape_action(ctx, &mut pipe, tree)?;
                    Node::Action(pipe)
                }
                Node::If(branch) => {
                    let escaped;
                    (ctx, escaped) = self.branch(ctx, branch, tree, "if")?;
                    Node::If(escaped)
                }
                Node::With(branch) => {
                    let escaped;
                    (ctx, escaped) = self.branch(ctx, branch, tree, "with")?;
                    Node::With(escaped)
                }
                Node::Range(branch) => {
                    let escaped;
                    (ctx, escaped) = self.branch(ctx, branch, tree, "range")?;
                    Node::Range(escaped)
                }
                Node::Template(call) => {
                    let name;
                    (ctx, name) = self.template(ctx, &call.name)?;
                    Node::Template(Call { name: name.into(), ..call.clone() })
                }
                Node::Break | Node::Continue => {
                    if let Some(contexts) = self.loops.last_mut() {
                        contexts.push(ctx);
                    }
                    ctx.state = State::Dead;
                    node.clone()
                }
            };
            nodes.push(node);
        }
        Ok((ctx, List { nodes }))
    }

    fn branch(
        &mut self,
        ctx: HtmlContext,
        branch: &Branch,
        tree: &Tree,
        name: &str,
    ) -> Result<(HtmlContext, Branch), TemplateError> {
        let join = |left: HtmlContext, right: HtmlContext, again: &str| {
            left.joined(right).map_or_else(
                || {
                    let message = format!(
                        "{again}{{{{{name}}}}} branches end in different contexts: {left}, {right}"
                    );
                    fail_at(tree, branch.position, &message)
                },
                Ok,
            )
        };
        let is_range = name == "range";
        if is_range {
            self.loops.push(Vec::new());
        }
        let (mut behind, list) = self.list(ctx, &branch.list, tree)?;
        if is_range {
            // The body runs again in the context that it leaves.
            for early in self.loops.pop().unwrap_or_default() {
                behind = join(behind, early, "at range loop break or continue: ")?;
            }
            self.loops.push(Vec::new());
            let (again, _) = self.list(behind, &branch.list, tree)?;
            self.loops.pop();
            behind = join(behind, again, "on range loop re-entry: ")?;
        }
        let (otherwise, else_list) = match &branch.else_list {
            None => (ctx, None),
            Some(list) => {
                let (ctx, list) = self.list(ctx, list, tree)?;
                (ctx, Some(list))
            }
        };
        let pipe = branch.pipe.clone();
        let escaped = Branch { position: branch.position, pipe, list, else_list };
        Ok((join(behind, otherwise, "")?, escaped))
    }
}

/// Moves over a text, leaving out comments and escaping stray brackets.
fn escape_text(
    ctx: HtmlContext,
    text: &str,
    name: &str,
) -> Result<(HtmlContext, String), TemplateError> {
    let (mut ctx, mut out, mut written, mut at) = (ctx, String::new(), 0, 0);
    while at < text.len() {
        let (next, length) = match transition::after_text(ctx, &text[at..]) {
            Ok(step) => step,
            Err(message) => return fail_in(name, &message),
        };
        let end = at + length;
        if matches!(ctx.state, State::Text | State::Rcdata) {
            // The bracket that opens the tag that ended the text stays.
            let tag = text[at..end].rfind('<').filter(|_| next.state != ctx.state);
            let literal_end = tag.map_or(end, |tag| at + tag);
            for (offset, _) in text[at..literal_end].match_indices('<') {
                let bracket = at + offset;
                let start = text.as_bytes().get(bracket..bracket + 9).unwrap_or_default();
                if !start.eq_ignore_ascii_case(b"<!DOCTYPE") {
                    out.push_str(&text[written..bracket]);
                    out.push_str("&lt;");
                    written = bracket + 1;
                }
            }
        } else if ctx.state.is_comment() && ctx.delim == Delim::None {
            match ctx.state {
                State::JsBlockCmt if text[written..end].contains(['\n', '\r']) => out.push('\n'),
                State::JsBlockCmt | State::CssBlockCmt => out.push(' '),
                _ => {}
            }
            written = end;
        }
        if next.state != ctx.state && next.state.is_comment() && next.delim == Delim::None {
            let opening = if text[at..end].ends_with("<!--") { 4 } else { 2 };
            out.push_str(&text[written..end - opening]);
            written = end;
        }
        assert!(length > 0 || next.state != ctx.state, "each step moves");
        (ctx, at) = (next, end);
    }
    if !ctx.state.is_comment() || ctx.delim != Delim::None {
        out.push_str(&text[written..]);
    }
    Ok((ctx, out))
}

/// Functions that the author may have put at the end of a pipeline.
const PREDEFINED: [&str; 2] = ["html", "urlquery"];

/// The escapers for an action's output in this context, and the context behind it.
fn escapers(
    ctx: HtmlContext,
    pipe: &Pipe,
    tree: &Tree,
) -> Result<(HtmlContext, Vec<&'static str>), TemplateError> {
    let mut ctx = ctx;
    let mut names = Vec::new();
    match ctx.state {
        State::Url
        | State::CssDqStr
        | State::CssSqStr
        | State::CssDqUrl
        | State::CssSqUrl
        | State::CssUrl => match ctx.url_part {
            UrlPart::QueryOrFrag => names.push(escape::URL),
            UrlPart::Unknown => {
                let message =
                    format!("{{{{{pipe}}}}} appears in an ambiguous context within a URL");
                return fail_at(tree, pipe.position, &message);
            }
            part => {
                if part == UrlPart::None {
                    names.push(escape::URL_FILTER);
                }
                let in_string = matches!(ctx.state, State::CssDqStr | State::CssSqStr);
                names.push(if in_string { escape::CSS } else { escape::URL_NORMALIZER });
            }
        },
        State::Js => {
            names.push(escape::JS_VALUE);
            // A slash behind a value divides.
            ctx.js_ctx = context::JsCtx::DivOp;
        }
        State::JsDqStr | State::JsSqStr => names.push(escape::JS_STRING),
        State::JsTmplLit => names.push(escape::JS_TEMPLATE),
        State::JsRegexp => names.push(escape::JS_REGEXP),
        State::Css => names.push(escape::CSS_VALUE),
        State::Text => names.push(escape::HTML),
        State::Rcdata => names.push(escape::RCDATA),
        State::AttrName | State::Tag => {
            ctx.state = State::AttrName;
            names.push(escape::NAME);
        }
        State::Srcset => names.push(escape::SRCSET),
        State::Attr | State::AfterName | State::BeforeValue | State::Dead => {}
        State::HtmlCmt
        | State::JsBlockCmt
        | State::JsLineCmt
        | State::CssBlockCmt
        | State::CssLineCmt => names.push(escape::COMMENT),
    }
    match ctx.delim {
        Delim::None => {}
        Delim::SpaceOrTagEnd => names.push(escape::NO_SPACE),
        Delim::DoubleQuote | Delim::SingleQuote => names.push(escape::ATTR),
    }
    Ok((ctx, names))
}

/// Puts the escapers at the end of an action's pipeline.
fn escape_action(
    ctx: HtmlContext,
    pipe: &mut Pipe,
    tree: &Tree,
) -> Result<HtmlContext, TemplateError> {
    if !pipe.declarations.is_empty() {
        return Ok(ctx);
    }
    let ctx = ctx.nudged();
    let stages = pipe.commands.len();
    for (stage, command) in pipe.commands.iter().enumerate() {
        let Some(name) = function_name(command) else { continue };
        let unquoted = ctx.state == State::Attr && ctx.delim == Delim::SpaceOrTagEnd;
        if PREDEFINED.contains(&name) && (stage + 1 < stages || (unquoted && name == "html")) {
            let name = super::fmt::quote(name);
            let message = format!("predefined escaper {name} disallowed in template");
            return fail_at(tree, pipe.position, &message);
        }
    }
    let (ctx, mut names) = escapers(ctx, pipe, tree)?;
    let last = pipe.commands.last().and_then(function_name);
    if let Some(own) = PREDEFINED.into_iter().find(|own| last == Some(*own)) {
        let stands_for: &[&str] = match own {
            "html" => &[escape::ATTR, escape::HTML, escape::RCDATA],
            _ => &[escape::URL, escape::URL_NORMALIZER],
        };
        let mut replaced = false;
        for name in names.iter_mut().filter(|name| stands_for.contains(name)) {
            (*name, replaced) = (own, true);
        }
        if replaced && let Some(command) = pipe.commands.pop() {
            // `{{ html a b }}` becomes `{{ print a b | html }}`.
            if let Some((first, rest)) = command.args.split_first()
                && !rest.is_empty()
            {
                let first = Operand { term: Term::Identifier("print".into()), ..first.clone() };
                let args = std::iter::once(first).chain(rest.iter().cloned()).collect();
                pipe.commands.push(Command { position: command.position, args });
            }
        }
    }
    let position = pipe.position;
    pipe.commands.extend(names.into_iter().map(|name| Command {
        position,
        args: vec![Operand { position, term: Term::Identifier(name.into()) }],
    }));
    Ok(ctx)
}

fn function_name(command: &Command) -> Option<&str> {
    match &command.args.first()?.term {
        Term::Identifier(name) => Some(name),
        _ => None,
    }
}
