//! The escapers that HTML templates get at the end of their pipelines, under Go's names.

use crate::template::functions::escape_html;
use crate::template::value::{Function, Safety, Type, Value};
use crate::template::{fmt, json};

pub(super) const ATTR: &str = "_html_template_attrescaper";
pub(super) const COMMENT: &str = "_html_template_commentescaper";
pub(super) const CSS: &str = "_html_template_cssescaper";
pub(super) const CSS_VALUE: &str = "_html_template_cssvaluefilter";
pub(super) const HTML: &str = "_html_template_htmlescaper";
pub(super) const JS_REGEXP: &str = "_html_template_jsregexpescaper";
pub(super) const JS_STRING: &str = "_html_template_jsstrescaper";
pub(super) const JS_TEMPLATE: &str = "_html_template_jstmpllitescaper";
pub(super) const JS_VALUE: &str = "_html_template_jsvalescaper";
pub(super) const NAME: &str = "_html_template_htmlnamefilter";
pub(super) const NO_SPACE: &str = "_html_template_nospaceescaper";
pub(super) const RCDATA: &str = "_html_template_rcdataescaper";
pub(super) const SRCSET: &str = "_html_template_srcsetescaper";
pub(super) const URL: &str = "_html_template_urlescaper";
pub(super) const URL_FILTER: &str = "_html_template_urlfilter";
pub(super) const URL_NORMALIZER: &str = "_html_template_urlnormalizer";

/// Stands in for what would be unsafe.
const UNSAFE: &str = "ZgotmplZ";

/// An escaper of one value.
macro_rules! escaper {
    ($function:expr) => {
        Function::variadic(&[], Type::Any, |_, args| Ok($function(args)))
    };
}

/// The escapers by name.
pub(in crate::template) static ESCAPERS: &[(&str, Function)] = &[
    (ATTR, escaper!(attr)),
    (COMMENT, escaper!(|_| Value::text(""))),
    (CSS, escaper!(css_string)),
    (CSS_VALUE, escaper!(css_value)),
    (HTML, escaper!(html)),
    (JS_REGEXP, escaper!(js_regexp)),
    (JS_STRING, escaper!(|args| js_string(args, ""))),
    (JS_TEMPLATE, escaper!(|args| js_string(args, "${}"))),
    (JS_VALUE, escaper!(js_value)),
    (NAME, escaper!(attr_name)),
    (NO_SPACE, escaper!(no_space)),
    (RCDATA, escaper!(rcdata)),
    (SRCSET, escaper!(srcset)),
    (URL, escaper!(|args| url(args, false))),
    (URL_FILTER, escaper!(url_filter)),
    (URL_NORMALIZER, escaper!(|args| url(args, true))),
];

/// The text of the arguments, and in which context it is safe.
fn text_of(args: &[Value]) -> (String, Option<Safety>) {
    match args {
        [Value::Str(text)] => (text.as_ref().to_owned(), None),
        [Value::Safe(safety, text)] => (text.as_ref().to_owned(), Some(*safety)),
        [Value::Nil] => (String::new(), None),
        [value] => (fmt::printed(value), None),
        values => {
            let given: Vec<_> =
                values.iter().filter(|value| !matches!(value, Value::Nil)).cloned().collect();
            (fmt::sprint(&given), None)
        }
    }
}

fn html(args: &[Value]) -> Value {
    match text_of(args) {
        (text, Some(Safety::Html)) => Value::text(text),
        (text, _) => Value::text(with_plus(&escape_html(&text))),
    }
}

/// Old browsers take `+ADw-` for a bracket in UTF-7.
fn with_plus(text: &str) -> String {
    text.replace('+', "&#43;")
}

/// Like [`escape_html`], but character references stay.
fn normalized(text: &str) -> String {
    with_plus(&escape_html(text)).replace("&amp;", "&")
}

fn rcdata(args: &[Value]) -> Value {
    match text_of(args) {
        (text, Some(Safety::Html)) => Value::text(normalized(&text)),
        (text, _) => Value::text(with_plus(&escape_html(&text))),
    }
}

fn attr(args: &[Value]) -> Value {
    match text_of(args) {
        (text, Some(Safety::Html)) => Value::text(normalized(&without_tags(&text))),
        (text, _) => Value::text(with_plus(&escape_html(&text))),
    }
}

fn no_space(args: &[Value]) -> Value {
    let text = match text_of(args) {
        (text, Some(Safety::Html)) => normalized(&without_tags(&text)),
        (text, _) => with_plus(&escape_html(&text)),
    };
    if text.is_empty() {
        return Value::text(UNSAFE);
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t'..='\r' | ' ' | '=' | '`' => out.push_str(&format!("&#{};", letter as u32)),
            letter => out.push(letter),
        }
    }
    Value::text(out)
}

/// The text of a piece of HTML.
fn without_tags(html: &str) -> String {
    let (mut out, mut rest) = (String::new(), html);
    while let Some(at) = rest.find('<') {
        let after = &rest[at + 1..];
        let is_tag = after
            .trim_start_matches(['/', '!'])
            .starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '-');
        if !is_tag {
            out.push_str(&rest[..=at]);
            rest = after;
            continue;
        }
        out.push_str(&rest[..at]);
        rest = after.find('>').map_or("", |end| &after[end + 1..]);
    }
    out + rest
}

/// Only names of attributes whose value is plain text.
fn attr_name(args: &[Value]) -> Value {
    use super::context::Attr;
    let name = text_of(args).0.to_lowercase();
    let plain = !name.is_empty()
        && name.chars().all(char::is_alphanumeric)
        && Attr::of_name(&name) == Attr::None
        && !matches!(name.as_str(), "srcdoc" | "type" | "content" | "charset" | "http" | "rel");
    Value::text(if plain { &name } else { UNSAFE })
}

/// No scheme, or one that runs no code.
fn is_safe_url(url: &str) -> bool {
    match url.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => {
            ["http", "https", "mailto"].iter().any(|safe| scheme.eq_ignore_ascii_case(safe))
        }
        _ => true,
    }
}

fn url_filter(args: &[Value]) -> Value {
    match text_of(args) {
        (text, Some(Safety::Url)) => Value::Safe(Safety::Url, text.into()),
        (text, _) if is_safe_url(&text) => Value::text(text),
        _ => Value::text(format!("#{UNSAFE}")),
    }
}

fn url(args: &[Value], normalize: bool) -> Value {
    let (text, safety) = text_of(args);
    Value::text(escape_url(&text, normalize || safety == Some(Safety::Url)))
}

/// Percent signs for all that is special; when normalizing, the parts of a whole URL stay.
fn escape_url(text: &str, normalize: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let kept = match byte {
            b'-' | b'.' | b'_' | b'~' => true,
            b'%' => {
                let digits = text.as_bytes().get(at + 1..at + 3);
                normalize && digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
            }
            _ if b"!#$&*+,/:;=?@[]".contains(&byte) => normalize,
            byte => byte.is_ascii_alphanumeric(),
        };
        if kept {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

fn srcset(args: &[Value]) -> Value {
    let (text, safety) = text_of(args);
    if safety == Some(Safety::Url) {
        return Value::text(escape_url(&text, true).replace(',', "%2c"));
    }
    let element = |element: &str| {
        let start = element.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
        let end = start.find([' ', '\t', '\n', '\x0c', '\r']).unwrap_or(start.len());
        let (url, metadata) = start.split_at(end);
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter.is_ascii_whitespace();
        if is_safe_url(url) && metadata.chars().all(plain) {
            let spaces = &element[..element.len() - start.len()];
            return format!("{spaces}{}{metadata}", escape_url(url, true));
        }
        format!("#{UNSAFE}")
    };
    Value::text(text.split(',').map(element).collect::<Vec<_>>().join(","))
}

/// A value of JavaScript: JSON, apart from words beside it.
fn js_value(args: &[Value]) -> Value {
    let encoded = match args {
        [value @ Value::Time(_)] => json::encode(value),
        [value] => match value.stringer() {
            Some(text) => json::encode(&Value::text(text)),
            None => json::encode(value),
        },
        values => json::encode(&Value::text(fmt::sprint(values))),
    };
    let encoded = match encoded {
        Ok(encoded) => encoded,
        Err(err) => {
            let err = err.replace("*/", "* /").replace("</", "\\x3C/").replace("<!--", "\\x3C!--");
            return Value::text(format!(" /* {err} */null "));
        }
    };
    let is_word = |letter: char| letter.is_alphanumeric() || matches!(letter, '$' | '_');
    let pad = if encoded.starts_with(is_word) || encoded.ends_with(is_word) { " " } else { "" };
    Value::text(format!("{pad}{encoded}{pad}"))
}

/// Within a regular expression of JavaScript. An empty one would be a comment.
fn js_regexp(args: &[Value]) -> Value {
    match js_string(args, "$()*-.?[]^{|}") {
        Value::Str(text) if text.is_empty() => Value::text("(?:)"),
        escaped => escaped,
    }
}

/// Within a literal of JavaScript; `special` letters get a backslash too.
fn js_string(args: &[Value], special: &str) -> Value {
    let text = text_of(args).0;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\\' | '/' => out.extend(['\\', letter]),
            '"' | '&' | '\'' | '+' | '<' | '>' | '`' | '\0'..' ' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", letter as u32));
            }
            letter if special.contains(letter) => out.extend(['\\', letter]),
            letter => out.push(letter),
        }
    }
    Value::text(out)
}

fn css_string(args: &[Value]) -> Value {
    let text = text_of(args).0;
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\0' | '\t' | '\n' | '\x0c' | '\r' | '"' | '&' | '\'' | '(' | ')' | '+' | '/' | ':'
            | ';' | '<' | '>' | '{' | '}' => {
                out.push_str(&format!("\\{:x}", letter as u32));
                let goes_on = |next: &char| next.is_ascii_hexdigit() || next.is_ascii_whitespace();
                if letters.peek().is_none_or(goes_on) {
                    out.push(' ');
                }
            }
            letter => out.push(letter),
        }
    }
    Value::text(out)
}

/// A keyword, number or colour; nothing that could run code or leave the declaration.
fn css_value(args: &[Value]) -> Value {
    const FORBIDDEN: [char; 18] = [
        '\0', '"', '\'', '(', ')', '/', ';', '@', '[', '\\', ']', '`', '{', '}', '<', '>', '\n',
        '\r',
    ];
    let text = text_of(args).0;
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let word = word.to_ascii_lowercase();
    let forbidden = text.contains(FORBIDDEN)
        || text.contains("--")
        || word.contains("expression")
        || word.contains("mozbinding");
    Value::text(if forbidden { UNSAFE } else { &text })
}
