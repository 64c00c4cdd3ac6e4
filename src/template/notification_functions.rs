//! The functions of notification templates: Alertmanager's, and arithmetic and text functions
//! that its users miss.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use jiff::tz::TimeZone;

use super::Context;
use super::fmt::quote;
use super::json;
use super::text_functions::{any, number, strings_of, text};
use super::time_layout::{Time, parse};
use super::value::{ANY_LIST, ANY_MAP, Function, Safety, Type, Value};

/// A function of one text.
macro_rules! of_text {
    (|$text:ident| $result:expr) => {
        Function::fixed(&[Type::Str], |_, args| {
            let $text = text(args, 0);
            Ok(Value::text($result))
        })
    };
}

/// A function of two texts, the subject last as pipelines want it.
macro_rules! of_two_texts {
    (|$first:ident, $subject:ident| $result:expr) => {
        Function::fixed(&[Type::Str, Type::Str], |_, args| {
            let ($first, $subject) = (text(args, 0), text(args, 1));
            Ok($result)
        })
    };
}

/// A function of two numbers.
macro_rules! arithmetic {
    ($ints:expr, $floats:expr) => {
        Function::fixed(&[Type::Any, Type::Any], |_, args| arithmetic(args, $ints, $floats))
    };
}

pub(super) static OWN: &[(&str, Function)] = &[
    ("add", arithmetic!(i64::checked_add, |left, right| left + right)),
    ("append", Function::variadic(&[Type::AnyList], Type::Any, append)),
    ("base64decode", Function::fixed(&[Type::Str], decode_base64)),
    ("base64encode", of_text!(|text| URL_SAFE.encode(text))),
    ("contains", of_two_texts!(|part, subject| Value::Bool(subject.contains(part)))),
    (
        "date",
        Function::fixed(&[Type::Str, Type::Time], |_, args| {
            Ok(Value::text(time(args, 1)?.format(text(args, 0))))
        }),
    ),
    (
        "default",
        Function::fixed(&[Type::Any, Type::Any], |_, args| {
            let given = any(args, 1);
            Ok(if given.truth() { given } else { any(args, 0) }.clone())
        }),
    ),
    ("dict", Function::variadic(&[], Type::Any, dict)),
    ("div", arithmetic!(i64::checked_div, |left, right| left / right)),
    ("hasPrefix", of_two_texts!(|part, subject| Value::Bool(subject.starts_with(part)))),
    ("hasSuffix", of_two_texts!(|part, subject| Value::Bool(subject.ends_with(part)))),
    (
        "join",
        Function::fixed(&[Type::Str, Type::Strings], |_, args| {
            Ok(Value::text(strings_of(any(args, 1)).join(text(args, 0))))
        }),
    ),
    (
        "list",
        Function::variadic(&[], Type::Any, |_, args| {
            Ok(Value::list(&ANY_LIST, args.iter().cloned()))
        }),
    ),
    ("mod", arithmetic!(i64::checked_rem, |left, right| left % right)),
    ("mul", arithmetic!(i64::checked_mul, |left, right| left * right)),
    (
        "mustToDate",
        Function::fixed(&[Type::Str, Type::Str], |_, args| {
            let (layout, subject) = (text(args, 0), text(args, 1));
            parse(layout, subject).map(Value::Time).ok_or_else(|| {
                let (subject, layout) = (quote(subject), quote(layout));
                format!("parsing time {subject} as {layout}: cannot parse {subject} as {layout}")
            })
        }),
    ),
    ("now", Function::fixed(&[], |ctx, _| Ok(Value::Time(Time::from_ms(ctx.now_ms))))),
    (
        "replace",
        Function::fixed(&[Type::Str, Type::Str, Type::Str], |_, args| {
            Ok(Value::text(text(args, 2).replace(text(args, 0), text(args, 1))))
        }),
    ),
    (
        "routeLabels",
        Function::fixed(&[Type::Str], |ctx, args| {
            let labels = ctx.route_labels.and_then(|labels| labels.get(text(args, 0)));
            Ok(Value::text(labels.unwrap_or("")))
        }),
    ),
    (
        "safeUrl",
        Function::fixed(&[Type::Str], |_, args| Ok(Value::Safe(Safety::Url, text(args, 0).into()))),
    ),
    (
        "since",
        Function::fixed(&[Type::Time], |ctx, args| {
            Ok(Value::Duration(Time::from_ms(ctx.now_ms).since(time(args, 0)?)))
        }),
    ),
    (
        "sort",
        Function::fixed(&[Type::Strings], |_, args| {
            let mut items = strings_of(any(args, 0));
            items.sort();
            Ok(Value::strings(items))
        }),
    ),
    ("split", of_two_texts!(|between, subject| Value::strings(subject.split(between)))),
    (
        "stringSlice",
        Function::variadic(&[], Type::Str, |_, args| {
            Ok(Value::strings(args.iter().filter_map(Value::as_str)))
        }),
    ),
    ("sub", arithmetic!(i64::checked_sub, |left, right| left - right)),
    (
        "ternary",
        Function::fixed(&[Type::Any, Type::Any, Type::Any], |_, args| {
            Ok(any(args, usize::from(!any(args, 2).truth())).clone())
        }),
    ),
    ("title", of_text!(|text| title(text))),
    (
        "toDate",
        Function::fixed(&[Type::Str, Type::Str], |_, args| {
            let time = parse(text(args, 0), text(args, 1));
            Ok(Value::Time(time.unwrap_or_else(Time::zero)))
        }),
    ),
    (
        "toJson",
        Function::fixed(&[Type::Any], |_, args| json::encode(any(args, 0)).map(Value::text)),
    ),
    ("trimSpace", of_text!(|text| text.trim())),
    (
        "trunc",
        Function::fixed(&[Type::Int, Type::Str], |_, args| {
            let length = usize::try_from(any(args, 0).as_int().unwrap_or(0)).unwrap_or(0);
            Ok(Value::text(text(args, 1).chars().take(length).collect::<String>()))
        }),
    ),
    (
        "tz",
        Function::fixed(&[Type::Str, Type::Time], |_, args| {
            let zone = zone(text(args, 0))?;
            Ok(Value::Time(Time { at: time(args, 1)?.at, zone }))
        }),
    ),
    (
        "uniq",
        Function::fixed(&[Type::Strings], |_, args| {
            let mut items: Vec<Arc<str>> = Vec::new();
            for item in strings_of(any(args, 0)) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Ok(Value::strings(items))
        }),
    ),
    ("urlUnescape", Function::fixed(&[Type::Str], |_, args| unescape_query(text(args, 0)))),
];

fn time(args: &[Value], index: usize) -> Result<&Time, String> {
    match any(args, index) {
        Value::Time(time) => Ok(time),
        _ => Err("no time".to_owned()),
    }
}

fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

/// Integers stay integers, anything else is computed with floats.
fn arithmetic(
    args: &[Value],
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value, String> {
    let (left, right) = (any(args, 0), any(args, 1));
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            ints(*left, *right).map(Value::Int).ok_or_else(|| {
                if *right == 0 { "division by zero" } else { "integer overflow" }.to_owned()
            })
        }
        _ => Ok(Value::Float(floats(number(left)?, number(right)?))),
    }
}

fn append(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let (list, more) = match args.split_first() {
        Some((Value::List(list), more)) => (&*list.items, more),
        Some((_, more)) => (&[][..], more),
        None => return Ok(Value::Nil),
    };
    Ok(Value::list(&ANY_LIST, list.iter().chain(more).cloned()))
}

fn dict(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let (pairs, rest) = args.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("dict expects an even number of arguments".to_owned());
    }
    let mut entries = Vec::with_capacity(pairs.len());
    for [key, value] in pairs {
        let Value::Str(key) = key else {
            return Err(format!("dict keys must be strings, got {}", key.type_name()));
        };
        entries.push((Arc::clone(key), value.clone()));
    }
    Ok(Value::map(&ANY_MAP, entries))
}

fn decode_base64(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol};
    let encoded = text(args, 0);
    let bytes = URL_SAFE.decode(encoded).map_err(|err| {
        let offset = match err {
            InvalidByte(offset, _) | InvalidLastSymbol { offset, .. } => offset,
            _ => encoded.len(),
        };
        format!("illegal base64 data at input byte {offset}")
    })?;
    Ok(Value::text(String::from_utf8_lossy(&bytes)))
}

fn unescape_query(text: &str) -> Result<Value, String> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let escape = String::from_utf8_lossy(bytes.get(at..).unwrap_or_default());
            let escape: String = escape.chars().take(3).collect();
            return Err(format!("invalid URL escape {}", quote(&escape)));
        }
    }
    let spaced = text.replace('+', " ");
    Ok(Value::text(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy()))
}

/// Capitals at the start of each word, small letters elsewhere. Apostrophes, dots and colons
/// between letters do not end a word, as in Unicode's rules.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_alphabetic() {
            if in_word {
                out.extend(letter.to_lowercase());
            } else {
                out.extend(letter.to_uppercase());
            }
            in_word = true;
            continue;
        }
        out.push(letter);
        let joins = matches!(letter, '\'' | '’' | '.' | ':' | '·')
            && letters.peek().is_some_and(|next| next.is_alphabetic());
        in_word = letter.is_numeric() || letter == '_' || (in_word && joins);
    }
    out
}
