//! Go's `fmt` for template values: `Sprint`, `Sprintln` and `Sprintf` with Go's verbs, flags and
//! complaints.

use super::value::Value;

pub(super) use crate::model::labels::quote;

/// Longest text that formatting makes; the rest is cut off, and the executor then reports that
/// the output is too long.
pub(super) const FORMAT_BYTES_MAX: usize = 2 << 20;
/// Widths and precisions beyond it are ignored. Go's limit is a million; nobody reads that, and
/// Rust's own formatter takes 16 bits.
const WIDTH_MAX: usize = 10_000;

/// `fmt.Sprint`: a space between two values neither of which is a string.
pub fn sprint(values: &[Value]) -> String {
    let mut printer = Printer::default();
    let is_string = |value: &Value| value.as_str().is_some();
    for (index, value) in values.iter().enumerate() {
        let previous = index.checked_sub(1).and_then(|before| values.get(before));
        if previous.is_some_and(|previous| !is_string(previous) && !is_string(value)) {
            printer.out.push(' ');
        }
        printer.value(value, 'v', 0);
    }
    printer.out
}

/// As an action prints its value: like [`sprint`], but pointers are followed.
pub fn printed(value: &Value) -> String {
    let mut printer = Printer::default();
    printer.value(value, 'v', 1);
    printer.out
}

/// `fmt.Sprintln`: spaces between all values and a newline.
pub fn sprintln(values: &[Value]) -> String {
    let mut printer = Printer::default();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            printer.out.push(' ');
        }
        printer.value(value, 'v', 0);
    }
    printer.out.push('\n');
    printer.out
}

/// `fmt.Sprintf`.
pub fn sprintf(format: &str, args: &[Value]) -> String {
    let mut directives =
        Directives { format, args, next: 0, reordered: false, printer: Printer::default() };
    directives.run();
    directives.printer.out
}

/// `%.4g`, as the humanize functions print.
pub fn float_4g(value: f64) -> String {
    format_float(value, 'g', Some(4))
}

/// `strconv.FormatFloat` in the forms `e`, `f` and `g`; no precision: as many digits as it takes.
pub fn format_float(value: f64, form: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    match (form.to_ascii_lowercase(), precision) {
        ('f', None) => format!("{value}"),
        ('f', Some(precision)) => format!("{value:.precision$}"),
        ('e', None) => exponent_form(&format!("{value:e}")),
        ('e', Some(precision)) => exponent_form(&format!("{value:.precision$e}")),
        (_, precision) => general_form(value, precision),
    }
}

/// Rust's `1.5e-7` to Go's `1.5e-07`.
fn exponent_form(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `%g`: plain for middling exponents, no zeros at the end.
fn general_form(value: f64, precision: Option<usize>) -> String {
    let text = match precision {
        None => format!("{value:e}"),
        Some(precision) => format!("{value:.*e}", precision.max(1) - 1),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    let digits = trimmed.bytes().filter(u8::is_ascii_digit).count() as i32;
    let limit = match precision {
        None => 6,
        Some(precision) => {
            let precision = precision.max(1) as i32;
            if precision > digits && digits > exponent { digits } else { precision }
        }
    };
    if exponent < -4 || exponent >= limit {
        return exponent_form(&format!("{trimmed}e{exponent}"));
    }
    let decimals = (digits - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// The flags of a directive.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Prints values one after the other.
#[derive(Default)]
struct Printer {
    out: String,
    flags: Flags,
    /// While a complaint is printed, `String()` is not asked.
    complaining: bool,
    /// The text is as long as it may be; nested values are no longer visited.
    full: bool,
}

impl Printer {
    fn push(&mut self, text: &str) {
        self.full |= self.out.len() + text.len() > FORMAT_BYTES_MAX;
        if !self.full {
            self.out.push_str(text);
        }
    }

    /// Pads with spaces, or with zeros where the flag asks for them.
    fn pad(&mut self, text: &str) {
        let missing = self.flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        let filler = if self.flags.zero && !self.flags.minus { "0" } else { " " };
        let padding = filler.repeat(missing);
        if self.flags.minus {
            self.push(text);
            self.push(&padding);
        } else {
            self.push(&padding);
            self.push(text);
        }
    }

    fn pad_spaces(&mut self, text: &str) {
        let zero = std::mem::take(&mut self.flags.zero);
        self.pad(text);
        self.flags.zero = zero;
    }

    /// Go's complaint about a verb that does not fit.
    fn bad_verb(&mut self, value: &Value, verb: char) {
        let flags = std::mem::take(&mut self.flags);
        self.complaining = true;
        self.push(&format!("%!{verb}("));
        if let Value::Nil = value {
            self.push("<nil>");
        } else {
            self.push(&format!("{}=", value.type_name()));
            self.value(value, 'v', 0);
        }
        self.push(")");
        self.complaining = false;
        self.flags = flags;
    }

    fn value(&mut self, value: &Value, verb: char, depth: usize) {
        if self.full {
            return;
        }
        if verb == 'T' {
            return self.string(&value.type_name(), 's', value);
        }
        if !self.complaining
            && "vsxXq".contains(verb)
            && let Some(text) = value.stringer()
        {
            return self.string(&text, verb, value);
        }
        match value {
            Value::Nil if verb == 'v' => self.pad_spaces("<nil>"),
            Value::Bool(flag) if matches!(verb, 'v' | 't') => self.pad_spaces(&flag.to_string()),
            Value::Nil | Value::Bool(_) => self.bad_verb(value, verb),
            Value::Float(number) => self.float(*number, verb, value),
            Value::Uint(number) => self.integer(*number, false, verb, value),
            Value::Str(text) | Value::Safe(_, text) => self.string(text, verb, value),
            Value::Time(time) => self.string(&time.to_string(), verb, value),
            Value::Int(_)
            | Value::Int64(_)
            | Value::Duration(_)
            | Value::Month(_)
            | Value::Weekday(_) => {
                let number = value.as_int().unwrap_or(0);
                self.integer(number.unsigned_abs(), number < 0, verb, value);
            }
            Value::List(list) => {
                self.push("[");
                for (index, item) in list.items.iter().enumerate() {
                    self.between(index);
                    self.value(item, verb, depth + 1);
                }
                self.push("]");
            }
            Value::Map(map) => {
                self.push("map[");
                for (index, (key, item)) in map.entries.iter().enumerate() {
                    self.between(index);
                    self.value(&Value::Str(key.clone()), verb, depth + 1);
                    self.push(":");
                    self.value(item, verb, depth + 1);
                }
                self.push("]");
            }
            Value::Struct(own) => {
                // Sprintf is given the pointer itself; printing an action follows it first.
                let marker = if own.go_type.pointer && depth == 0 { "&{" } else { "{" };
                self.push(marker);
                for (index, (item, (name, _))) in
                    own.values.iter().zip(own.go_type.fields).enumerate()
                {
                    self.between(index);
                    if self.flags.plus {
                        self.push(&format!("{name}:"));
                    }
                    self.value(item, verb, depth + 1);
                }
                self.push("}");
            }
        }
    }

    fn between(&mut self, index: usize) {
        if index > 0 {
            self.push(" ");
        }
    }

    fn string(&mut self, text: &str, verb: char, value: &Value) {
        let cut: String;
        let text = match self.flags.precision {
            Some(length) if matches!(verb, 'v' | 's' | 'q') => {
                cut = text.chars().take(length).collect();
                &cut
            }
            _ => text,
        };
        match verb {
            'v' if self.flags.sharp => self.pad(&quote(text)),
            'v' | 's' => self.pad(text),
            'q' if self.flags.sharp && !text.contains(['`', '\n', '\r']) => {
                self.pad(&format!("`{text}`"));
            }
            'q' if self.flags.plus => self.pad(&quote_ascii(text)),
            'q' => self.pad(&quote(text)),
            'x' | 'X' => {
                let length = self.flags.precision.unwrap_or(usize::MAX);
                let (space, sharp) = (self.flags.space, self.flags.sharp);
                let mut hex = String::new();
                for (index, byte) in text.bytes().take(length).enumerate() {
                    if space && index > 0 {
                        hex.push(' ');
                    }
                    if sharp && (index == 0 || space) {
                        hex.push_str("0x");
                    }
                    hex.push_str(&format!("{byte:02x}"));
                }
                self.pad(&if verb == 'X' { hex.to_uppercase() } else { hex });
            }
            _ => self.bad_verb(value, verb),
        }
    }

    fn integer(&mut self, magnitude: u64, negative: bool, verb: char, value: &Value) {
        let letter = (!negative)
            .then(|| u32::try_from(magnitude).ok().and_then(char::from_u32))
            .flatten()
            .unwrap_or(char::REPLACEMENT_CHARACTER);
        let (digits, prefix) = match verb {
            'v' | 'd' => (magnitude.to_string(), ""),
            'b' => (format!("{magnitude:b}"), "0b"),
            'o' => (format!("{magnitude:o}"), "0"),
            'O' => (format!("{magnitude:o}"), "0o"),
            'x' => (format!("{magnitude:x}"), "0x"),
            'X' => (format!("{magnitude:X}"), "0X"),
            'c' => return self.pad(&letter.to_string()),
            'q' => {
                let quoted = quote(&letter.to_string());
                let inner = quoted.trim_matches('"');
                let inner = match letter {
                    '\'' => "\\'",
                    '"' => "\"",
                    _ => inner,
                };
                return self.pad(&format!("'{inner}'"));
            }
            'U' => {
                let code = format!("U+{magnitude:04X}");
                let with = if self.flags.sharp { format!("{code} '{letter}'") } else { code };
                return self.pad_spaces(&with);
            }
            _ => return self.bad_verb(value, verb),
        };
        let prefix = if self.flags.sharp || verb == 'O' { prefix } else { "" };
        let sign = self.sign(negative);
        let fixed = sign.len() + prefix.len();
        let width = match (self.flags.precision, self.flags.width) {
            (Some(0), _) if magnitude == 0 => return self.pad_spaces(""),
            (Some(precision), _) => precision,
            (None, Some(width)) if self.flags.zero && !self.flags.minus => {
                width.saturating_sub(fixed)
            }
            _ => 0,
        };
        self.pad_spaces(&format!("{sign}{prefix}{digits:0>width$}"));
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.flags.plus, self.flags.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        }
    }

    fn float(&mut self, number: f64, verb: char, value: &Value) {
        let (form, precision) = match verb {
            'v' | 'g' | 'G' => ('g', self.flags.precision),
            'e' | 'E' => ('e', Some(self.flags.precision.unwrap_or(6))),
            'f' | 'F' => ('f', Some(self.flags.precision.unwrap_or(6))),
            _ => return self.bad_verb(value, verb),
        };
        let mut text = format_float(number.abs(), form, precision);
        if matches!(verb, 'E' | 'G') {
            text = text.replace('e', "E");
        }
        let negative = number.is_sign_negative() && !number.is_nan();
        let digits = text.trim_start_matches('+');
        let sign = match self.sign(negative) {
            // Go prints the sign of +Inf always with %+v, and as "+Inf" anyway.
            "" if number.is_infinite() => "+",
            sign => sign,
        };
        match self.flags.width {
            Some(width) if self.flags.zero && !self.flags.minus && number.is_finite() => {
                let width = width.saturating_sub(sign.len());
                self.pad_spaces(&format!("{sign}{digits:0>width$}"));
            }
            _ => self.pad_spaces(&format!("{sign}{digits}")),
        }
    }
}

/// Go's `strconv.QuoteToASCII`.
fn quote_ascii(text: &str) -> String {
    let mut out = String::new();
    for letter in quote(text).chars() {
        match letter as u32 {
            0..0x80 => out.push(letter),
            code @ 0x80..0x1_0000 => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

/// The walk through a format.
struct Directives<'a> {
    format: &'a str,
    args: &'a [Value],
    /// Index of the next argument.
    next: usize,
    /// Whether an explicit index was used, which silences the complaint about extra arguments.
    reordered: bool,
    printer: Printer,
}

impl Directives<'_> {
    fn run(&mut self) {
        let mut rest = self.format;
        while let Some(at) = rest.find('%') {
            self.printer.push(&rest[..at]);
            rest = self.directive(&rest[at + 1..]);
        }
        self.printer.push(rest);
        if self.reordered || self.next >= self.args.len() {
            return;
        }
        self.printer.flags = Flags::default();
        self.printer.push("%!(EXTRA ");
        for (index, value) in self.args[self.next..].iter().enumerate() {
            if index > 0 {
                self.printer.push(", ");
            }
            if let Value::Nil = value {
                self.printer.push("<nil>");
            } else {
                self.printer.push(&format!("{}=", value.type_name()));
                self.printer.value(value, 'v', 0);
            }
        }
        self.printer.push(")");
    }

    /// One directive after its percent sign; returns what follows it.
    fn directive<'f>(&mut self, format: &'f str) -> &'f str {
        let mut flags = Flags::default();
        let mut rest = format;
        loop {
            match rest.chars().next() {
                Some('#') => flags.sharp = true,
                Some('0') => flags.zero = true,
                Some('+') => flags.plus = true,
                Some('-') => flags.minus = true,
                Some(' ') => flags.space = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut good_index = true;
        rest = self.index(rest, &mut good_index);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match self.int_argument() {
                Some(width) => {
                    flags.minus |= width < 0;
                    flags.width = Some(width.unsigned_abs() as usize);
                }
                None => self.printer.push("%!(BADWIDTH)"),
            }
        } else {
            (flags.width, rest) = leading_number(rest);
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = self.index(after, &mut good_index);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match self.int_argument() {
                    Some(precision) => flags.precision = usize::try_from(precision).ok(),
                    None => self.printer.push("%!(BADPREC)"),
                }
            } else {
                let digits;
                (digits, rest) = leading_number(rest);
                flags.precision = Some(digits.unwrap_or(0));
            }
        }
        rest = self.index(rest, &mut good_index);
        let Some(verb) = rest.chars().next() else {
            self.printer.push("%!(NOVERB)");
            return rest;
        };
        self.verb(verb, flags, good_index);
        &rest[verb.len_utf8()..]
    }

    fn verb(&mut self, verb: char, flags: Flags, good_index: bool) {
        if verb == '%' {
            return self.printer.push("%");
        }
        if !good_index {
            return self.printer.push(&format!("%!{verb}(BADINDEX)"));
        }
        let Some(value) = self.args.get(self.next) else {
            return self.printer.push(&format!("%!{verb}(MISSING)"));
        };
        self.next += 1;
        self.printer.flags = flags;
        self.printer.value(value, verb, 0);
    }

    /// An explicit argument index `[n]`.
    fn index<'f>(&mut self, rest: &'f str, good: &mut bool) -> &'f str {
        let Some(inside) = rest.strip_prefix('[') else { return rest };
        self.reordered = true;
        let Some(end) = inside.find(']') else {
            *good = false;
            return inside;
        };
        match inside[..end].parse::<usize>() {
            Ok(index) if (1..=self.args.len()).contains(&index) => self.next = index - 1,
            _ => *good = false,
        }
        &inside[end + 1..]
    }

    /// The argument of a `*`.
    fn int_argument(&mut self) -> Option<i64> {
        let value = self.args.get(self.next)?;
        self.next += 1;
        value.as_int().filter(|number| number.unsigned_abs() <= WIDTH_MAX as u64)
    }
}

fn leading_number(text: &str) -> (Option<usize>, &str) {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    (digits.parse().ok().filter(|number| *number <= WIDTH_MAX), rest)
}
