//! Builds the tree of each template of a text, with Go's rules and error texts.

use std::borrow::Cow;
use std::sync::Arc;

use super::TemplateError;
use super::fmt::quote;
use super::lexer::{Keyword, Kind, Token, tokenize};
use super::node::{Branch, Call, Command, List, Node, Number, Operand, Pipe, Term, Tree};

/// How deep controls and parentheses may nest: the parser, the executor and the destructors
/// recurse along them.
const NESTING_MAX: usize = 100;

/// Parses a text: its own template (of that name) first, then the ones it defines. `known` tells
/// which functions exist.
pub(super) fn parse(
    name: &str,
    text: &str,
    known: &dyn Fn(&str) -> bool,
) -> Result<Vec<Tree>, TemplateError> {
    let mut parser = Parser {
        name: Arc::from(name),
        text: Arc::from(text),
        tokens: tokenize(text),
        next: 0,
        head: 0,
        action_line: None,
        vars: vec![Cow::Borrowed("$")],
        range_depth: 0,
        nesting: 0,
        defined: Vec::new(),
        known,
    };
    let root = parser.top()?;
    let mut trees = vec![parser.tree(Arc::from(name), root)];
    // A text may define its own name, as Go's set of trees lets it.
    for tree in std::mem::take(&mut parser.defined) {
        match trees.iter().position(|own| own.name == tree.name) {
            None => trees.push(tree),
            Some(0) if trees[0].root.is_blank() => trees[0] = tree,
            Some(_) if tree.root.is_blank() => {}
            Some(_) => {
                let name = quote(&tree.name);
                let message = format!("template: multiple definition of template {name}");
                return Err(parser.error(&message));
            }
        }
    }
    Ok(trees)
}

struct Parser<'a> {
    name: Arc<str>,
    text: Arc<str>,
    tokens: Vec<Token<'a>>,
    /// Index of the next token.
    next: usize,
    /// Index of the furthest token looked at: errors tell its line.
    head: usize,
    /// Where the action began that is being read.
    action_line: Option<usize>,
    vars: Vec<Cow<'a, str>>,
    range_depth: usize,
    nesting: usize,
    defined: Vec<Tree>,
    known: &'a dyn Fn(&str) -> bool,
}

/// How a list of nodes ended.
enum ListEnd {
    End,
    Else,
}

impl ListEnd {
    fn as_str(&self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

/// A node, or the end of the list of nodes.
enum Item {
    Node(Node),
    End(ListEnd),
}

impl<'a> Parser<'a> {
    fn tree(&self, name: Arc<str>, root: List) -> Tree {
        Tree { name, parse_name: Arc::clone(&self.name), text: Arc::clone(&self.text), root }
    }

    fn error(&self, message: &str) -> TemplateError {
        let line = self.tokens.get(self.head).map_or(1, |token| token.line);
        TemplateError { message: format!("template: {}:{line}: {message}", self.name) }
    }

    fn fail<T>(&self, message: &str) -> Result<T, TemplateError> {
        Err(self.error(message))
    }

    fn unexpected<T>(&self, token: &Token<'_>, context: &str) -> Result<T, TemplateError> {
        if token.kind != Kind::Error {
            return self.fail(&format!("unexpected {} in {context}", token.describe()));
        }
        let mut message = token.describe();
        if let Some(line) = self.action_line.filter(|line| *line != token.line) {
            let inside = if message.ends_with(" action") { "" } else { " in action" };
            message = format!("{message}{inside} started at {}:{line}", self.name);
        }
        self.fail(&message)
    }

    fn peek(&mut self) -> Token<'a> {
        // The last token is the end or an error: it repeats.
        let index = self.next.min(self.tokens.len() - 1);
        self.head = index;
        self.tokens[index].clone()
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn next_non_space(&mut self) -> Token<'a> {
        loop {
            let token = self.next();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    fn peek_non_space(&mut self) -> Token<'a> {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
        self.peek()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token<'a>, TemplateError> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn enter(&mut self) -> Result<(), TemplateError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return self.fail(&format!("nested deeper than {NESTING_MAX} levels"));
        }
        Ok(())
    }

    /// The whole text.
    fn top(&mut self) -> Result<List, TemplateError> {
        let mut list = List::default();
        loop {
            let token = self.peek();
            if token.kind == Kind::Eof {
                return Ok(list);
            }
            if token.kind == Kind::LeftDelim {
                let start = self.next;
                self.next();
                if self.next_non_space().kind == Kind::Keyword(Keyword::Define) {
                    self.definition()?;
                    continue;
                }
                self.next = start;
            }
            match self.text_or_action()? {
                Item::Node(node) => list.nodes.push(node),
                Item::End(end) => return self.fail(&format!("unexpected {}", end.as_str())),
            }
        }
    }

    fn template_name(
        &mut self,
        token: &Token<'a>,
        context: &str,
    ) -> Result<Arc<str>, TemplateError> {
        match token.kind {
            Kind::String | Kind::RawString => self.unquoted(&token.text),
            _ => self.unexpected(token, context),
        }
    }

    fn unquoted(&self, text: &str) -> Result<Arc<str>, TemplateError> {
        match unquote(text) {
            Some(text) => Ok(text.into()),
            None => self.fail("invalid syntax"),
        }
    }

    fn definition(&mut self) -> Result<(), TemplateError> {
        const CONTEXT: &str = "define clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.body(name, CONTEXT)
    }

    /// The nodes of a definition up to its end; variables of the outside are not seen in it.
    fn body(&mut self, name: Arc<str>, context: &str) -> Result<(), TemplateError> {
        let vars = std::mem::replace(&mut self.vars, vec![Cow::Borrowed("$")]);
        let range_depth = std::mem::take(&mut self.range_depth);
        let (root, end) = self.item_list()?;
        if let ListEnd::Else = end {
            return self.fail(&format!("unexpected {} in {context}", end.as_str()));
        }
        (self.vars, self.range_depth) = (vars, range_depth);
        let tree = self.tree(name, root);
        match self.defined.iter_mut().find(|own| own.name == tree.name) {
            None => self.defined.push(tree),
            Some(own) if own.root.is_blank() => *own = tree,
            Some(_) if tree.root.is_blank() => {}
            Some(_) => {
                let name = quote(&tree.name);
                return self.fail(&format!("template: multiple definition of template {name}"));
            }
        }
        Ok(())
    }

    fn item_list(&mut self) -> Result<(List, ListEnd), TemplateError> {
        self.enter()?;
        let mut list = List::default();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Item::Node(node) => list.nodes.push(node),
                Item::End(end) => {
                    self.nesting -= 1;
                    return Ok((list, end));
                }
            }
        }
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<Item, TemplateError> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(Arc::from(&*token.text)))),
            Kind::LeftDelim => {
                self.action_line = Some(token.line);
                let item = self.action();
                self.action_line = None;
                item
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Result<Item, TemplateError> {
        let token = self.next_non_space();
        let Kind::Keyword(keyword) = token.kind else {
            self.next -= 1;
            let pipe = self.pipeline("command", Kind::RightDelim)?;
            return Ok(Item::Node(Node::Action(pipe)));
        };
        Ok(Item::Node(match keyword {
            Keyword::Block => self.block()?,
            Keyword::Template => self.template()?,
            Keyword::Break => self.leave_range("{{break}}", Node::Break)?,
            Keyword::Continue => self.leave_range("{{continue}}", Node::Continue)?,
            Keyword::If => Node::If(self.control("if")?),
            Keyword::With => Node::With(self.control("with")?),
            Keyword::Range => Node::Range(self.control("range")?),
            Keyword::Else => {
                let next = self.peek_non_space().kind;
                // The caller goes on with the `if` of `else if` and the `with` of `else with`.
                if !matches!(next, Kind::Keyword(Keyword::If | Keyword::With)) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Item::End(ListEnd::Else));
            }
            Keyword::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::End(ListEnd::End));
            }
            Keyword::Define | Keyword::Nil => {
                self.next -= 1;
                let pipe = self.pipeline("command", Kind::RightDelim)?;
                Node::Action(pipe)
            }
        }))
    }

    fn leave_range(&mut self, name: &str, node: Node) -> Result<Node, TemplateError> {
        let end = self.next_non_space();
        if end.kind != Kind::RightDelim {
            return self.unexpected(&end, name);
        }
        if self.range_depth == 0 {
            return self.fail(&format!("{name} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn block(&mut self) -> Result<Node, TemplateError> {
        const CONTEXT: &str = "block clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = Some(self.pipeline(CONTEXT, Kind::RightDelim)?);
        self.body(Arc::clone(&name), CONTEXT)?;
        Ok(Node::Template(Call { position: token.position, name, pipe }))
    }

    fn template(&mut self) -> Result<Node, TemplateError> {
        const CONTEXT: &str = "template clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = if self.peek_non_space().kind == Kind::RightDelim {
            self.next();
            None
        } else {
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(Node::Template(Call { position: token.position, name, pipe }))
    }

    fn control(&mut self, context: &'static str) -> Result<Branch, TemplateError> {
        let outside = self.vars.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let in_range = usize::from(context == "range");
        self.range_depth += in_range;
        let (list, end) = self.item_list()?;
        self.range_depth -= in_range;
        let else_list = match end {
            ListEnd::End => None,
            ListEnd::Else => Some(self.else_list(context)?),
        };
        self.vars.truncate(outside);
        Ok(Branch { position: pipe.position, pipe, list, else_list })
    }

    fn else_list(&mut self, context: &str) -> Result<List, TemplateError> {
        let chained = match (context, self.peek().kind) {
            ("if", Kind::Keyword(Keyword::If)) => Some("if"),
            ("with", Kind::Keyword(Keyword::With)) => Some("with"),
            _ => None,
        };
        let Some(context) = chained else {
            let (list, end) = self.item_list()?;
            return match end {
                ListEnd::End => Ok(list),
                ListEnd::Else => self.fail("expected end; found {{else}}"),
            };
        };
        self.next();
        self.enter()?;
        let branch = self.control(context)?;
        self.nesting -= 1;
        let node = if context == "if" { Node::If(branch) } else { Node::With(branch) };
        Ok(List { nodes: vec![node] })
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, TemplateError> {
        self.enter()?;
        let position = self.peek_non_space().position;
        let mut pipe =
            Pipe { position, is_assign: false, declarations: Vec::new(), commands: Vec::new() };
        while self.declaration(&mut pipe, context)? {}
        loop {
            let token = self.next_non_space();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Keyword(Keyword::Nil)
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.next -= 1;
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        self.nesting -= 1;
        if pipe.commands.is_empty() {
            return self.fail(&format!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            let first = command.args.first().map(|operand| &operand.term);
            if let Some(
                Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::String(..),
            ) = first
            {
                let stage = index + 1;
                let message = format!("non executable command in pipeline stage {stage}");
                return self.fail(&message);
            }
        }
        Ok(pipe)
    }

    /// `$x :=`, `$x =` or `$i,`; whether another declaration may follow.
    fn declaration(&mut self, pipe: &mut Pipe, context: &str) -> Result<bool, TemplateError> {
        let variable = self.peek_non_space();
        if variable.kind != Kind::Variable {
            return Ok(false);
        }
        let start = self.next;
        self.next();
        let next = self.peek_non_space();
        let is_comma = next.kind == Kind::Char && next.text == ",";
        if !is_comma && !matches!(next.kind, Kind::Assign | Kind::Declare) {
            self.next = start;
            return Ok(false);
        }
        self.next();
        pipe.declarations.push(Arc::from(&*variable.text));
        self.vars.push(variable.text);
        if !is_comma {
            pipe.is_assign = next.kind == Kind::Assign;
            return Ok(false);
        }
        if context != "range" || pipe.declarations.len() >= 2 {
            return self.fail(&format!("too many declarations in {context}"));
        }
        match self.peek_non_space().kind {
            Kind::Variable | Kind::RightDelim | Kind::RightParen => Ok(true),
            _ => self.fail("range can only initialize variables"),
        }
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let position = self.peek_non_space().position;
        let mut args = Vec::new();
        loop {
            self.peek_non_space();
            args.extend(self.operand()?);
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::RightDelim | Kind::RightParen => {
                    self.next -= 1;
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if args.is_empty() {
            return self.fail("empty command");
        }
        Ok(Command { position, args })
    }

    /// A term and the fields that hang on it.
    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let Some(operand) = self.term()? else { return Ok(None) };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(operand));
        }
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(field_name(&self.next().text));
        }
        let position = first.position;
        let term = match operand.term {
            Term::Field(mut own) => {
                own.append(&mut names);
                Term::Field(own)
            }
            Term::Variable(variable, mut own) => {
                own.append(&mut names);
                Term::Variable(variable, own)
            }
            Term::Identifier(_) | Term::Pipe(_) | Term::Chain(..) => {
                Term::Chain(Box::new(operand), names)
            }
            Term::Bool(_) | Term::String(..) | Term::Number(_) | Term::Nil | Term::Dot => {
                let term = quote(&operand.to_string());
                return self.fail(&format!("unexpected . after term {term}"));
            }
        };
        Ok(Some(Operand { position, term }))
    }

    fn term(&mut self) -> Result<Option<Operand>, TemplateError> {
        let token = self.next_non_space();
        let text = &*token.text;
        let term = match token.kind {
            Kind::Identifier if (self.known)(text) => Term::Identifier(text.into()),
            Kind::Identifier => {
                return self.fail(&format!("function {} not defined", quote(text)));
            }
            Kind::Dot => Term::Dot,
            Kind::Keyword(Keyword::Nil) => Term::Nil,
            Kind::Variable if self.vars.contains(&token.text) => {
                Term::Variable(text.into(), Vec::new())
            }
            Kind::Variable => return self.fail(&format!("undefined variable {}", quote(text))),
            Kind::Field => Term::Field(vec![field_name(text)]),
            Kind::Bool => Term::Bool(text == "true"),
            Kind::CharConstant => match char_constant(text) {
                Some(code) => Term::Number(Number {
                    text: text.into(),
                    int: Some(i64::from(code)),
                    uint: Some(u64::from(code)),
                    float: Some(f64::from(code)),
                }),
                None => return self.fail(&format!("malformed character constant: {text}")),
            },
            Kind::Number => match number(text) {
                Ok(number) => Term::Number(number),
                Err(message) => return self.fail(&message),
            },
            Kind::LeftParen => {
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                // Go gives a parenthesised pipeline the position of its first token.
                return Ok(Some(Operand { position: pipe.position, term: Term::Pipe(pipe) }));
            }
            Kind::String | Kind::RawString => Term::String(text.into(), self.unquoted(text)?),
            _ => {
                self.next = self.next.saturating_sub(1);
                return Ok(None);
            }
        };
        Ok(Some(Operand { position: token.position, term }))
    }
}

fn field_name(token: &str) -> Arc<str> {
    Arc::from(token.strip_prefix('.').unwrap_or(token))
}

/// Go's `strconv.Unquote` for `"…"` and `` `…` ``.
fn unquote(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`') {
        return Some(raw.strip_suffix('`')?.replace('\r', ""));
    }
    let body = text.strip_prefix('"')?.strip_suffix('"')?;
    unescape(body, '"')
}

/// The one letter between single quotes.
fn char_constant(text: &str) -> Option<u32> {
    let body = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let text = unescape(body, '\'')?;
    let mut letters = text.chars();
    let letter = letters.next()?;
    letters.next().is_none().then_some(letter as u32)
}

/// Go's escapes. Bytes that are no UTF-8 together become the replacement character.
fn unescape(body: &str, quote: char) -> Option<String> {
    if !body.contains('\\') {
        return (!body.contains('\n')).then(|| body.to_owned());
    }
    let mut bytes = Vec::with_capacity(body.len());
    let push = |bytes: &mut Vec<u8>, letter: char| {
        bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    };
    let mut rest = body;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        if letter != '\\' {
            push(&mut bytes, letter);
            continue;
        }
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        let mut digits = |count: usize, radix: u32| {
            let code = u32::from_str_radix(rest.get(..count)?, radix).ok()?;
            rest = &rest[count..];
            Some(code)
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            _ if escape == quote => push(&mut bytes, quote),
            'u' => push(&mut bytes, char::from_u32(digits(4, 16)?)?),
            'U' => push(&mut bytes, char::from_u32(digits(8, 16)?)?),
            'x' => bytes.push(u8::try_from(digits(2, 16)?).ok()?),
            '0'..='7' => {
                let code = escape.to_digit(8)? * 64 + digits(2, 8)?;
                bytes.push(u8::try_from(code).ok()?);
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a number may stand for: Go's literals with base prefixes and underscores.
fn number(text: &str) -> Result<Number, String> {
    let mut number = Number { text: text.into(), int: None, uint: None, float: None };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-');
    if let Some(magnitude) = integer(digits) {
        number.int = if negative {
            0_i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        };
        number.uint = (!text.starts_with(['+', '-'])).then_some(magnitude);
        number.float = number.int.map(|int| int as f64).or(number.uint.map(|uint| uint as f64));
    } else if let Some(float) = float(text) {
        let hexadecimal = digits.starts_with("0x") || digits.starts_with("0X");
        if !hexadecimal && !text.contains(['.', 'e', 'E', 'p', 'P']) {
            return Err(format!("integer overflow: {}", quote(text)));
        }
        number.float = Some(float);
        if float.fract() == 0.0 && float.abs() < 9e18 {
            number.int = Some(float as i64);
            number.uint = u64::try_from(float as i64).ok();
        }
    }
    if number.int.is_none() && number.uint.is_none() && number.float.is_none() {
        return Err(format!("illegal number syntax: {}", quote(text)));
    }
    Ok(number)
}

fn integer(digits: &str) -> Option<u64> {
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let misplaced = body.ends_with('_') || body.contains("__");
    let leading = radix == 10 && body.starts_with('_');
    if misplaced || leading || body.is_empty() {
        return None;
    }
    u64::from_str_radix(&body.replace('_', ""), radix).ok()
}

fn float(text: &str) -> Option<f64> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text.contains('_')
        || !plain.starts_with(|first: char| first.is_ascii_digit() || first == '.')
    {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}
