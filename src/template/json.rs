//! Template values as JSON, as Go's `encoding/json` writes them.

use super::fmt::FORMAT_BYTES_MAX;
use super::time_layout::RFC3339_NANO;
use super::value::Value;

/// The value as JSON; `<`, `>` and `&` are escaped as Go does.
pub(super) fn encode(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    push(&mut out, value)?;
    Ok(out)
}

fn push(out: &mut String, value: &Value) -> Result<(), String> {
    if out.len() > FORMAT_BYTES_MAX {
        return Err(format!("JSON is longer than {FORMAT_BYTES_MAX} bytes"));
    }
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(_)
        | Value::Int64(_)
        | Value::Duration(_)
        | Value::Month(_)
        | Value::Weekday(_) => out.push_str(&value.as_int().unwrap_or(0).to_string()),
        Value::Uint(value) => out.push_str(&value.to_string()),
        Value::Float(value) if value.is_finite() => {
            out.push_str(&crate::model::float::format_json(*value));
        }
        Value::Float(value) => {
            let value = crate::model::float::format_plain(*value);
            return Err(format!("json: unsupported value: {value}"));
        }
        Value::Str(text) | Value::Safe(_, text) => push_string(out, text),
        Value::Time(time) => push_string(out, &time.format(RFC3339_NANO)),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                separate(out, index);
                push(out, item)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, item)) in map.entries.iter().enumerate() {
                separate(out, index);
                push_string(out, key);
                out.push(':');
                push(out, item)?;
            }
            out.push('}');
        }
        Value::Struct(own) => {
            out.push('{');
            let fields = own.go_type.fields.iter().zip(own.values.iter());
            for (index, ((_, name), item)) in fields.enumerate() {
                separate(out, index);
                push_string(out, name);
                out.push(':');
                push(out, item)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", letter as u32));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}
