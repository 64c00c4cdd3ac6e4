//! The functions that every Go template has: comparisons, indexing, printing, escaping.

use std::cmp::Ordering;

use super::fmt::{sprint, sprintf, sprintln};
use super::value::{Function, List, Map, Type, Value};
use super::{Context, Functions};

const ANY: &[Type] = &[Type::Any];
const TWO: &[Type] = &[Type::Any, Type::Any];

/// A function that cannot fail.
macro_rules! text_of {
    (|$args:ident| $result:expr) => {
        Function::variadic(&[], Type::Any, |_, $args| Ok(Value::text($result)))
    };
}

static BUILTINS: &[(&str, Function)] = &[
    ("call", Function::variadic(ANY, Type::Any, call)),
    ("eq", Function::variadic(ANY, Type::Any, |_, args| equal(args).map(Value::Bool))),
    ("ge", Function::fixed(TWO, |_, args| less(args).map(|less| Value::Bool(!less)))),
    ("gt", Function::fixed(TWO, |_, args| less_or_equal(args).map(|le| Value::Bool(!le)))),
    ("html", text_of!(|args| escape_html(&joined(args)))),
    ("index", Function::variadic(ANY, Type::Any, index)),
    ("js", text_of!(|args| escape_js(&joined(args)))),
    ("le", Function::fixed(TWO, |_, args| less_or_equal(args).map(Value::Bool))),
    ("len", Function::fixed(ANY, length)),
    ("lt", Function::fixed(TWO, |_, args| less(args).map(Value::Bool))),
    ("ne", Function::fixed(TWO, |_, args| equal(args).map(|equal| Value::Bool(!equal)))),
    (
        "not",
        Function::fixed(ANY, |_, args| Ok(Value::Bool(!args.first().is_some_and(Value::truth)))),
    ),
    ("print", text_of!(|args| sprint(args))),
    (
        "printf",
        Function::variadic(&[Type::Str], Type::Any, |_, args| match args.split_first() {
            Some((format, args)) => Ok(Value::text(sprintf(format.as_str().unwrap_or(""), args))),
            None => Err("no format".to_owned()),
        }),
    ),
    ("println", text_of!(|args| sprintln(args))),
    ("slice", Function::variadic(ANY, Type::Any, slice)),
    ("urlquery", text_of!(|args| escape_query(&joined(args)))),
];

/// Go's own functions and those of the tables.
pub(super) fn with_builtins(tables: &[&[(&'static str, Function)]]) -> Functions {
    let all = std::iter::once(&BUILTINS).chain(tables).copied();
    all.flatten().map(|(name, function)| (*name, *function)).collect()
}

/// What the escaping functions work on: one string, or what `print` makes of the arguments.
fn joined(args: &[Value]) -> String {
    match args {
        [Value::Str(text)] => text.as_ref().to_owned(),
        [value] => super::fmt::printed(value),
        _ => sprint(args),
    }
}

fn call(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    match args {
        [_, Value::Nil, ..] | [_] => Err("call of nil".to_owned()),
        [name, value, ..] => {
            let (name, type_name) = (name.as_str().unwrap_or(""), value.type_name());
            Err(format!("non-function {name} of type {type_name}"))
        }
        [] => Err("missing argument for call".to_owned()),
    }
}

/// Values by Go's kinds, as far as they can be compared.
enum Basic<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(&'a str),
    Other,
}

fn basic(value: &Value) -> Basic<'_> {
    match value {
        Value::Bool(value) => Basic::Bool(*value),
        Value::Uint(value) => Basic::Uint(*value),
        Value::Float(value) => Basic::Float(*value),
        Value::Str(text) | Value::Safe(_, text) => Basic::Text(text),
        value => value.as_int().map_or(Basic::Other, Basic::Int),
    }
}

fn incompatible(left: &Value, right: &Value) -> String {
    let (left, right) = (left.type_name(), right.type_name());
    format!("incompatible types for comparison: {left} and {right}")
}

/// Whether the first equals any of the others.
fn equal(args: &[Value]) -> Result<bool, String> {
    let Some((left, others)) = args.split_first() else { return Ok(false) };
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for right in others {
        let same = match (basic(left), basic(right)) {
            (Basic::Bool(left), Basic::Bool(right)) => left == right,
            (Basic::Int(left), Basic::Int(right)) => left == right,
            (Basic::Uint(left), Basic::Uint(right)) => left == right,
            (Basic::Float(left), Basic::Float(right)) => left == right,
            (Basic::Text(left), Basic::Text(right)) => left == right,
            (Basic::Int(int), Basic::Uint(uint)) | (Basic::Uint(uint), Basic::Int(int)) => {
                u64::try_from(int) == Ok(uint)
            }
            (Basic::Other, Basic::Other) => equal_others(left, right)?,
            _ if matches!(left, Value::Nil) || matches!(right, Value::Nil) => false,
            _ => return Err(incompatible(left, right)),
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal_others(left: &Value, right: &Value) -> Result<bool, String> {
    match (left, right) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Time(left), Value::Time(right)) => Ok(left.at == right.at),
        _ => {
            let (value, type_name) = (sprint(std::slice::from_ref(left)), left.type_name());
            Err(format!("non-comparable type {value}: {type_name}"))
        }
    }
}

/// How two values are ordered; `None` when one is not a number.
fn ordering(args: &[Value]) -> Result<Option<Ordering>, String> {
    let [left, right] = args else { return Err("missing argument for comparison".to_owned()) };
    Ok(match (basic(left), basic(right)) {
        (Basic::Bool(_) | Basic::Other, _) | (_, Basic::Other) => {
            return Err("invalid type for comparison".to_owned());
        }
        (Basic::Int(left), Basic::Int(right)) => Some(left.cmp(&right)),
        (Basic::Uint(left), Basic::Uint(right)) => Some(left.cmp(&right)),
        (Basic::Float(left), Basic::Float(right)) => left.partial_cmp(&right),
        (Basic::Text(left), Basic::Text(right)) => Some(left.cmp(right)),
        (Basic::Int(left), Basic::Uint(right)) => Some(i128::from(left).cmp(&right.into())),
        (Basic::Uint(left), Basic::Int(right)) => Some(i128::from(left).cmp(&right.into())),
        _ => return Err(incompatible(left, right)),
    })
}

fn less(args: &[Value]) -> Result<bool, String> {
    Ok(ordering(args)? == Some(Ordering::Less))
}

/// Go asks "less, or equal", so that NaN is neither, and `gt` and `ge` of NaN hold.
fn less_or_equal(args: &[Value]) -> Result<bool, String> {
    Ok(matches!(ordering(args)?, Some(Ordering::Less | Ordering::Equal)))
}

fn length(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let length = match args.first() {
        None | Some(Value::Nil) => return Err("len of nil pointer".to_owned()),
        Some(Value::Str(text) | Value::Safe(_, text)) => text.len(),
        Some(Value::List(list)) => list.items.len(),
        Some(Value::Map(map)) => map.entries.len(),
        Some(value) => return Err(format!("len of type {}", value.type_name())),
    };
    Ok(Value::Int(length as i64))
}

/// A position given as a value; `length` itself is allowed for [`slice`] only.
fn position(value: &Value, length: usize, past_end: usize) -> Result<usize, String> {
    let index = match value {
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        Value::Uint(index) => i64::try_from(*index).unwrap_or(i64::MAX),
        value => value
            .as_int()
            .ok_or_else(|| format!("cannot index slice/array with type {}", value.type_name()))?,
    };
    match usize::try_from(index) {
        Ok(index) if index < length + past_end => Ok(index),
        _ => Err(format!("index out of range: {index}")),
    }
}

fn index(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let Some((item, indexes)) = args.split_first() else { return Ok(Value::Nil) };
    if let Value::Nil = item {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = item.clone();
    for index in indexes {
        item = match &item {
            Value::List(List { items, .. }) => {
                let at = position(index, items.len(), 0)?;
                items.get(at).cloned().unwrap_or(Value::Nil)
            }
            Value::Str(text) | Value::Safe(_, text) => {
                let at = position(index, text.len(), 0)?;
                Value::Uint(text.as_bytes().get(at).copied().unwrap_or(0).into())
            }
            Value::Map(map) => entry(map, index)?,
            Value::Nil => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn entry(map: &Map, key: &Value) -> Result<Value, String> {
    match key {
        Value::Str(key) => Ok(map.get_or_zero(key)),
        Value::Nil => Err("value is nil; should be of type string".to_owned()),
        key => Err(format!("value has type {}; should be string", key.type_name())),
    }
}

fn slice(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let Some((item, indexes)) = args.split_first() else { return Ok(Value::Nil) };
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let length = match item {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::Str(_) | Value::Safe(..) if indexes.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Str(text) | Value::Safe(_, text) => text.len(),
        Value::List(list) => list.items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length, 1)?;
    }
    let [start, end, capacity] = bounds;
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    if end > capacity {
        return Err(format!("invalid slice index: {end} > {capacity}"));
    }
    Ok(match item {
        Value::List(list) => {
            Value::list(list.go_type, list.items.iter().take(end).skip(start).cloned())
        }
        item => {
            let bytes = item.as_str().unwrap_or("").as_bytes();
            Value::text(String::from_utf8_lossy(bytes.get(start..end).unwrap_or_default()))
        }
    })
}

/// Go's `HTMLEscapeString`.
pub(super) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\0' => out.push(char::REPLACEMENT_CHARACTER),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter => out.push(letter),
        }
    }
    out
}

/// Go's `JSEscapeString`.
fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..' ' => {
                out.push_str(&format!("\\u{:04X}", letter as u32));
            }
            letter => out.push(letter),
        }
    }
    out
}

/// Go's `url.QueryEscape`.
pub(super) fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
