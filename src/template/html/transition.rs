//! How literal text of a template moves the HTML context.

use super::context::{Attr, Delim, Element, HtmlContext, JsCtx, State, UrlPart};
use crate::template::fmt::quote;

/// The context behind some of the text, and how many bytes that is.
pub(super) type Step = (HtmlContext, usize);

const SPACES: [char; 5] = [' ', '\t', '\n', '\x0c', '\r'];

/// Moves over a first piece of `text`. Only an end tag may be met without moving, which changes
/// the state.
pub(super) fn after_text(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    if ctx.delim == Delim::None {
        return match raw_element_end(ctx, text) {
            Some(0) => Ok((HtmlContext::TEXT, 0)),
            Some(end) => step(ctx, &text[..end]),
            None => step(ctx, text),
        };
    }
    let ends: &[char] = match ctx.delim {
        Delim::DoubleQuote => &['"'],
        Delim::SingleQuote => &['\''],
        Delim::SpaceOrTagEnd | Delim::None => &[' ', '\t', '\n', '\x0c', '\r', '>'],
    };
    let end = text.find(ends);
    let value = &text[..end.unwrap_or(text.len())];
    if ctx.delim == Delim::SpaceOrTagEnd
        && let Some(at) = value.find(['"', '\'', '<', '=', '`'])
    {
        let letter = quote(&value[at..=at]);
        return Err(format!("{letter} in unquoted attr: {}", quote(value)));
    }
    let Some(end) = end else {
        let mut ctx = ctx;
        let decoded = unescape(value);
        let mut rest = &*decoded;
        while !rest.is_empty() {
            let before = ctx.state;
            let (after, length) = step(ctx, rest)?;
            ctx = after;
            assert!(length > 0 || ctx.state != before, "each step moves");
            rest = &rest[length..];
        }
        return Ok((ctx, text.len()));
    };
    let data_script =
        ctx.attr == Attr::ScriptType && ctx.element == Element::Script && !is_script_type(value);
    let element = if data_script { Element::None } else { ctx.element };
    let quote_bytes = usize::from(ctx.delim != Delim::SpaceOrTagEnd);
    Ok((HtmlContext::inside(State::Tag, element), end + quote_bytes))
}

fn step(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    let all = text.len();
    match ctx.state {
        State::Text => Ok(in_text(ctx, text)),
        State::Tag => in_tag(ctx, text),
        State::AttrName => {
            let end = attr_name_end(text)?;
            let state = if end == all { State::AttrName } else { State::AfterName };
            Ok((HtmlContext { state, ..ctx }, end))
        }
        State::AfterName => Ok(match skip_spaces(text) {
            at if at == all => (ctx, all),
            at if text[at..].starts_with('=') => {
                (HtmlContext { state: State::BeforeValue, ..ctx }, at + 1)
            }
            at => (HtmlContext { state: State::Tag, ..ctx }, at),
        }),
        State::BeforeValue => Ok(before_value(ctx, text)),
        State::HtmlCmt => Ok(match text.find("-->") {
            Some(at) => (HtmlContext::TEXT, at + 3),
            None => (ctx, all),
        }),
        State::Rcdata | State::Attr | State::Srcset | State::Dead => Ok((ctx, all)),
        State::Url => Ok((in_url(ctx, text), all)),
        State::Js => in_js(ctx, text),
        State::JsDqStr | State::JsSqStr | State::JsTmplLit | State::JsRegexp => {
            in_js_literal(ctx, text)
        }
        State::JsBlockCmt => Ok(comment(ctx, text, "*/", State::Js)),
        State::CssBlockCmt => Ok(comment(ctx, text, "*/", State::Css)),
        State::JsLineCmt => Ok(line_comment(ctx, text, State::Js)),
        State::CssLineCmt => Ok(line_comment(ctx, text, State::Css)),
        State::Css => Ok(in_css(ctx, text)),
        State::CssDqStr | State::CssSqStr | State::CssDqUrl | State::CssSqUrl | State::CssUrl => {
            in_css_string(ctx, text)
        }
    }
}

/// Where the end tag of a script, style, title or text area begins.
fn raw_element_end(ctx: HtmlContext, text: &str) -> Option<usize> {
    let name = ctx.element.raw_name()?;
    let in_content =
        !matches!(ctx.state, State::Tag | State::AttrName | State::AfterName | State::BeforeValue);
    let literal =
        ctx.element == Element::Script && (ctx.state.is_script_literal() || ctx.state.is_comment());
    if literal || !in_content {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    lower.match_indices("</").map(|(at, _)| at).find(|at| {
        let rest = lower[at + 2..].strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['>', '/', ' ', '\t', '\n', '\x0c', '\r']))
    })
}

fn skip_spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(SPACES).len()
}

fn in_text(ctx: HtmlContext, text: &str) -> Step {
    for (at, _) in text.match_indices('<') {
        let rest = &text[at..];
        if rest.starts_with("<!--") {
            return (HtmlContext::inside(State::HtmlCmt, Element::None), at + 4);
        }
        let is_end = rest.starts_with("</");
        let start = at + if is_end { 2 } else { 1 };
        let length = tag_name_length(&text[start..]);
        if length > 0 {
            let name = text[start..start + length].to_ascii_lowercase();
            let element = if is_end { Element::None } else { Element::of_name(&name) };
            return (HtmlContext::inside(State::Tag, element), start + length);
        }
    }
    (ctx, text.len())
}

/// Letters and digits, with single `-` and `:` between them.
fn tag_name_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    let mut length = 1;
    loop {
        let next_is_word = bytes.get(length + 1).is_some_and(u8::is_ascii_alphanumeric);
        match bytes.get(length) {
            Some(byte) if byte.is_ascii_alphanumeric() => length += 1,
            Some(b':' | b'-') if next_is_word => length += 2,
            _ => return length,
        }
    }
}

fn attr_name_end(text: &str) -> Result<usize, String> {
    for (at, letter) in text.char_indices() {
        match letter {
            ' ' | '\t' | '\n' | '\x0c' | '\r' | '=' | '>' => return Ok(at),
            '\'' | '"' | '<' => {
                let start: String = text.chars().take(32).collect();
                let letter = quote(&letter.to_string());
                return Err(format!("{letter} in attribute name: {}", quote(&start)));
            }
            _ => {}
        }
    }
    Ok(text.len())
}

fn in_tag(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    let start = skip_spaces(text);
    let rest = &text[start..];
    if rest.is_empty() {
        return Ok((ctx, text.len()));
    }
    if rest.starts_with('>') {
        return Ok((HtmlContext::inside(ctx.element.content(), ctx.element), start + 1));
    }
    let length = attr_name_end(rest)?;
    if length == 0 {
        let rest = quote(rest);
        return Err(format!("expected space, attr name, or end of tag, but got {rest}"));
    }
    let name = rest[..length].to_ascii_lowercase();
    let attr = if ctx.element == Element::Script && name == "type" {
        Attr::ScriptType
    } else {
        Attr::of_name(&name)
    };
    let state = if length == rest.len() { State::AttrName } else { State::AfterName };
    Ok((HtmlContext { attr, ..HtmlContext::inside(state, ctx.element) }, start + length))
}

fn before_value(ctx: HtmlContext, text: &str) -> Step {
    let start = skip_spaces(text);
    let (delim, skipped) = match text[start..].chars().next() {
        None => return (ctx, text.len()),
        Some('\'') => (Delim::SingleQuote, 1),
        Some('"') => (Delim::DoubleQuote, 1),
        Some(_) => (Delim::SpaceOrTagEnd, 0),
    };
    (HtmlContext { state: ctx.attr.value_state(), delim, ..ctx }, start + skipped)
}

fn in_url(ctx: HtmlContext, text: &str) -> HtmlContext {
    let url_part = if text.contains(['#', '?']) {
        UrlPart::QueryOrFrag
    } else if skip_spaces(text) != text.len() && ctx.url_part == UrlPart::None {
        UrlPart::PreQuery
    } else {
        ctx.url_part
    };
    HtmlContext { url_part, ..ctx }
}

fn comment(ctx: HtmlContext, text: &str, end: &str, outside: State) -> Step {
    match text.find(end) {
        Some(at) => (HtmlContext { state: outside, ..ctx }, at + end.len()),
        None => (ctx, text.len()),
    }
}

/// The line's end belongs to the code behind the comment.
fn line_comment(ctx: HtmlContext, text: &str, outside: State) -> Step {
    match text.find(['\n', '\r', '\x0c', '\u{2028}', '\u{2029}']) {
        Some(at) => (HtmlContext { state: outside, ..ctx }, at),
        None => (ctx, text.len()),
    }
}

fn in_js(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    let Some(at) = text.find(['"', '`', '\'', '/', '<', '-']) else {
        return Ok((HtmlContext { js_ctx: next_js_ctx(text, ctx.js_ctx), ..ctx }, text.len()));
    };
    let rest = &text[at..];
    let js_ctx = next_js_ctx(&text[..at], ctx.js_ctx);
    let literal = |state| (HtmlContext { state, js_ctx: JsCtx::Regexp, ..ctx }, at + 1);
    let in_comment = |state, length| (HtmlContext { state, js_ctx, ..ctx }, at + length);
    Ok(match rest.as_bytes() {
        [b'"', ..] => literal(State::JsDqStr),
        [b'\'', ..] => literal(State::JsSqStr),
        [b'`', ..] => literal(State::JsTmplLit),
        [b'/', b'/', ..] => in_comment(State::JsLineCmt, 2),
        [b'/', b'*', ..] => in_comment(State::JsBlockCmt, 2),
        [b'/', ..] => match js_ctx {
            JsCtx::Regexp => literal(State::JsRegexp),
            JsCtx::DivOp => (HtmlContext { js_ctx: JsCtx::Regexp, ..ctx }, at + 1),
            JsCtx::Unknown => {
                let start: String = rest.chars().take(32).collect();
                return Err(format!("'/' could start a division or regexp: {}", quote(&start)));
            }
        },
        // Scripts may begin lines with these HTML comments.
        [b'<', b'!', b'-', b'-', ..] => in_comment(State::JsLineCmt, 4),
        _ => {
            let js_ctx = next_js_ctx(&text[..=at], ctx.js_ctx);
            (HtmlContext { js_ctx, ..ctx }, at + 1)
        }
    })
}

/// What a slash means behind this code.
fn next_js_ctx(code: &str, before: JsCtx) -> JsCtx {
    const KEYWORDS: [&str; 13] = [
        "break",
        "case",
        "continue",
        "delete",
        "do",
        "else",
        "finally",
        "in",
        "instanceof",
        "return",
        "throw",
        "try",
        "typeof",
    ];
    let code = code.trim_end_matches([' ', '\t', '\n', '\x0c', '\r', '\u{2028}', '\u{2029}']);
    let Some(last) = code.chars().next_back() else { return before };
    let regexp = match last {
        // Not behind `x++`.
        '+' | '-' => (code.len() - code.trim_end_matches(last).len()) % 2 == 1,
        '.' => !code[..code.len() - 1].ends_with(|digit: char| digit.is_ascii_digit()),
        ',' | '<' | '>' | '=' | '*' | '%' | '&' | '|' | '^' | '?' | '!' | '~' | '(' | '[' | ':'
        | ';' | '{' | '}' => true,
        _ => {
            let is_name = |letter: char| letter.is_alphanumeric() || "_$".contains(letter);
            let word = &code[code.trim_end_matches(is_name).len()..];
            word == "void" || KEYWORDS.contains(&word)
        }
    };
    if regexp { JsCtx::Regexp } else { JsCtx::DivOp }
}

fn in_js_literal(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    let (end, name) = match ctx.state {
        State::JsSqStr => ('\'', "string"),
        State::JsTmplLit => ('`', "template literal"),
        State::JsRegexp => ('/', "regexp"),
        _ => ('"', "string"),
    };
    let mut in_set = false;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' if letters.next().is_none() => {
                return Err(format!("unfinished escape sequence in JS {name}: {}", quote(text)));
            }
            '$' if end == '`' && letters.peek().is_some_and(|(_, next)| *next == '{') => {
                // Code within a literal within code: nobody needs that in a message.
                return Err(format!("expression in JS template literal: {}", quote(text)));
            }
            '[' if end == '/' => in_set = true,
            ']' => in_set = false,
            letter if letter == end && !in_set => {
                let after = HtmlContext { state: State::Js, js_ctx: JsCtx::DivOp, ..ctx };
                return Ok((after, at + 1));
            }
            _ => {}
        }
    }
    if in_set {
        return Err(format!("unfinished JS regexp charset: {}", quote(text)));
    }
    Ok((ctx, text.len()))
}

fn in_css(ctx: HtmlContext, text: &str) -> Step {
    for (at, mark) in text.match_indices(['(', '"', '\'', '/']) {
        let rest = &text[at..];
        let before = text[..at].trim_end_matches(SPACES).to_ascii_lowercase();
        let (state, length) = match mark {
            "(" if before.ends_with("url") => {
                let spaces = skip_spaces(&rest[1..]);
                match rest[1 + spaces..].chars().next() {
                    Some('"') => (State::CssDqUrl, spaces + 2),
                    Some('\'') => (State::CssSqUrl, spaces + 2),
                    _ => (State::CssUrl, spaces + 1),
                }
            }
            "/" if rest.starts_with("//") => (State::CssLineCmt, 2),
            "/" if rest.starts_with("/*") => (State::CssBlockCmt, 2),
            "\"" => (State::CssDqStr, 1),
            "'" => (State::CssSqStr, 1),
            _ => continue,
        };
        return (HtmlContext { state, ..ctx }, at + length);
    }
    (ctx, text.len())
}

fn in_css_string(ctx: HtmlContext, text: &str) -> Result<Step, String> {
    let ends: &[char] = match ctx.state {
        State::CssDqStr | State::CssDqUrl => &['"'],
        State::CssSqStr | State::CssSqUrl => &['\''],
        _ => &['\t', '\n', '\x0c', '\r', ' ', ')'],
    };
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && letters.next().is_none() {
            let text = quote(text);
            return Err(format!("unfinished escape sequence in CSS string: {text}"));
        }
        if ends.contains(&letter) {
            let after = HtmlContext { state: State::Css, url_part: UrlPart::None, ..ctx };
            return Ok((after, at + 1));
        }
    }
    Ok((in_url(ctx, text), text.len()))
}

/// Whether a script of that type is JavaScript or JSON.
fn is_script_type(value: &str) -> bool {
    let name = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(name.as_str(), "" | "module")
        || ["javascript", "ecmascript", "json", "jsonp", "livescript", "jscript"]
            .iter()
            .any(|script| name.ends_with(script))
}

/// The character references that matter to quotes and brackets.
fn unescape(text: &str) -> String {
    let text = text.replace("&quot;", "\"").replace("&#34;", "\"").replace("&#39;", "'");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
