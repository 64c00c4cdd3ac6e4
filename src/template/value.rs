//! The values that templates compute with: Go's kinds, named types with fields and methods, and
//! times. Clones are cheap.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Context;
use super::time_layout::Time;

/// A value of a template.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: prints `<no value>`.
    Nil,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `int64`
    Int64(i64),
    /// `uint`
    Uint(u64),
    /// `float64`
    Float(f64),
    /// `string`
    Str(Arc<str>),
    /// A string that is safe in one context of an HTML page.
    Safe(Safety, Arc<str>),
    /// `time.Duration`, in nanoseconds
    Duration(i64),
    /// `time.Time`
    Time(Time),
    /// `time.Month`, from 1
    Month(i8),
    /// `time.Weekday`, Sunday is 0
    Weekday(i8),
    /// A slice.
    List(List),
    /// A map from strings.
    Map(Map),
    /// A struct, or a pointer to one.
    Struct(Struct),
}

/// Where a [`Value::Safe`] may stand without being escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Between tags.
    Html,
    /// In a URL.
    Url,
}

/// A named type of Go: its name in error texts, its methods and its fields.
pub struct GoType {
    /// As `%T` prints it.
    pub name: &'static str,
    /// Its `String()`, if it has one.
    pub text: Option<fn(&Value) -> String>,
    /// Its methods by name; the receiver is the first argument of each call.
    pub methods: &'static [(&'static str, Function)],
    /// For structs: the names of the fields in templates and in JSON, in order.
    pub fields: &'static [(&'static str, &'static str)],
    /// For maps: whether elements are strings, whose zero value is the empty string.
    pub strings: bool,
    /// For structs: whether templates hold a pointer to it.
    pub pointer: bool,
}

impl std::fmt::Debug for GoType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl GoType {
    /// A type without fields, methods and text of its own.
    pub const fn plain(name: &'static str) -> Self {
        Self { name, text: None, methods: &[], fields: &[], strings: false, pointer: false }
    }
}

/// `[]interface {}`
pub static ANY_LIST: GoType = GoType::plain("[]interface {}");
/// `[]string`
pub static STRING_LIST: GoType = GoType { strings: true, ..GoType::plain("[]string") };
/// `map[string]interface {}`
pub static ANY_MAP: GoType = GoType::plain("map[string]interface {}");
/// `map[string]string`
pub static STRING_MAP: GoType = GoType { strings: true, ..GoType::plain("map[string]string") };

/// Values may nest this deep: printing and dropping them recurses.
pub const VALUE_DEPTH_MAX: u16 = 64;

/// A slice of some type.
#[derive(Clone, Debug)]
pub struct List {
    /// Its type.
    pub go_type: &'static GoType,
    /// Its elements.
    pub items: Arc<[Value]>,
    depth: u16,
}

/// A map from strings of some type.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its type.
    pub go_type: &'static GoType,
    /// Its entries, in the order in which templates see them.
    pub entries: Arc<BTreeMap<Arc<str>, Value>>,
    depth: u16,
}

/// A struct of some type.
#[derive(Clone, Debug)]
pub struct Struct {
    /// Its type.
    pub go_type: &'static GoType,
    /// The values of the type's fields.
    pub values: Arc<[Value]>,
    depth: u16,
}

/// What a function computes: the arguments (after a method's receiver) to its result.
pub type Call = fn(&Context<'_>, &[Value]) -> Result<Value, String>;

/// A function or method that templates can call.
#[derive(Clone, Copy)]
pub struct Function {
    /// Types of the arguments that must be there.
    pub params: &'static [Type],
    /// Type of any number of further arguments.
    pub rest: Option<Type>,
    /// The function.
    pub call: Call,
}

impl Function {
    /// A function of a fixed number of arguments.
    pub const fn fixed(params: &'static [Type], call: Call) -> Self {
        Self { params, rest: None, call }
    }

    /// A function with any number of arguments after the fixed ones.
    pub const fn variadic(params: &'static [Type], rest: Type, call: Call) -> Self {
        Self { params, rest: Some(rest), call }
    }
}

/// Type of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Anything, nil too.
    Any,
    /// `string`
    Str,
    /// `int`
    Int,
    /// `float64`
    Float,
    /// `bool`
    Bool,
    /// `time.Time`
    Time,
    /// `time.Duration`
    Duration,
    /// `[]string`
    Strings,
    /// `[]interface {}`
    AnyList,
    /// A named type.
    Named(&'static GoType),
}

impl Type {
    /// As Go prints it.
    pub fn name(self) -> String {
        match self {
            Self::Any => "interface {}".to_owned(),
            Self::Str => "string".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Float => "float64".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Time => "time.Time".to_owned(),
            Self::Duration => "time.Duration".to_owned(),
            Self::Strings => STRING_LIST.name.to_owned(),
            Self::AnyList => ANY_LIST.name.to_owned(),
            Self::Named(go_type) if go_type.pointer => format!("*{}", go_type.name),
            Self::Named(go_type) => go_type.name.to_owned(),
        }
    }

    /// Whether nil may stand for it.
    pub fn takes_nil(self) -> bool {
        matches!(self, Self::Any | Self::Strings | Self::AnyList | Self::Named(_))
    }

    /// Whether Go would assign the value to it.
    pub fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _)
            | (Self::Str, Value::Str(_))
            | (Self::Int, Value::Int(_))
            | (Self::Float, Value::Float(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::Time, Value::Time(_))
            | (Self::Duration, Value::Duration(_)) => true,
            (Self::Strings, Value::List(list)) => list.go_type.strings,
            (Self::AnyList, Value::List(list)) => std::ptr::eq(list.go_type, &raw const ANY_LIST),
            (Self::Named(go_type), value) => {
                value.go_type().is_some_and(|own| std::ptr::eq(own, go_type))
            }
            _ => false,
        }
    }
}

fn depth_of<'a>(values: impl IntoIterator<Item = &'a Value>) -> u16 {
    values.into_iter().map(Value::depth).max().unwrap_or(0) + 1
}

impl Value {
    /// A string.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Str(Arc::from(text.as_ref()))
    }

    /// A slice of that type.
    pub fn list(go_type: &'static GoType, items: impl IntoIterator<Item = Self>) -> Self {
        let items: Arc<[Self]> = items.into_iter().collect();
        Self::List(List { go_type, depth: depth_of(&*items), items })
    }

    /// A `[]string`.
    pub fn strings<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::list(&STRING_LIST, items.into_iter().map(Self::text))
    }

    /// A map of that type.
    pub fn map(
        go_type: &'static GoType,
        entries: impl IntoIterator<Item = (Arc<str>, Self)>,
    ) -> Self {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        Self::Map(Map { go_type, depth: depth_of(entries.values()), entries: Arc::new(entries) })
    }

    /// A map of that type with the pairs of a label set.
    pub fn labels(go_type: &'static GoType, labels: &crate::model::labels::Labels) -> Self {
        Self::map(go_type, labels.iter().map(|(name, value)| (name.into(), Self::text(value))))
    }

    /// A struct of that type; a value for each of its fields.
    pub fn new_struct(go_type: &'static GoType, values: impl IntoIterator<Item = Self>) -> Self {
        let values: Arc<[Self]> = values.into_iter().collect();
        assert_eq!(values.len(), go_type.fields.len(), "a value for each field");
        Self::Struct(Struct { go_type, depth: depth_of(&*values), values })
    }

    /// How deep it nests.
    pub fn depth(&self) -> u16 {
        match self {
            Self::List(List { depth, .. })
            | Self::Map(Map { depth, .. })
            | Self::Struct(Struct { depth, .. }) => *depth,
            _ => 0,
        }
    }

    /// Go's name of its type, as `%T` prints it.
    pub fn type_name(&self) -> String {
        let name = match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Int64(_) => "int64",
            Self::Uint(_) => "uint",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::Safe(Safety::Html, _) => "template.HTML",
            Self::Safe(Safety::Url, _) => "template.URL",
            Self::Duration(_) => "time.Duration",
            Self::Time(_) => "time.Time",
            Self::Month(_) => "time.Month",
            Self::Weekday(_) => "time.Weekday",
            Self::Struct(own) if own.go_type.pointer => return format!("*{}", own.go_type.name),
            Self::List(List { go_type, .. })
            | Self::Map(Map { go_type, .. })
            | Self::Struct(Struct { go_type, .. }) => go_type.name,
        };
        name.to_owned()
    }

    /// Its named type, where it is one of ours.
    pub fn go_type(&self) -> Option<&'static GoType> {
        match self {
            Self::List(List { go_type, .. })
            | Self::Map(Map { go_type, .. })
            | Self::Struct(Struct { go_type, .. }) => Some(go_type),
            _ => None,
        }
    }

    /// A method of its type.
    pub fn method(&self, name: &str) -> Option<Function> {
        let methods = match self {
            Self::Time(_) => super::time_methods::TIME,
            Self::Duration(_) => super::time_methods::DURATION,
            Self::Month(_) | Self::Weekday(_) => super::time_methods::NAMES,
            _ => self.go_type()?.methods,
        };
        methods.iter().find(|(own, _)| *own == name).map(|(_, function)| *function)
    }

    /// Whether `if` takes it for true: not zero, not empty.
    pub fn truth(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Int64(value) | Self::Duration(value) => *value != 0,
            Self::Month(value) | Self::Weekday(value) => *value != 0,
            Self::Uint(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) | Self::Safe(_, text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Struct(_) | Self::Time(_) => true,
        }
    }

    /// Its text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Safe(_, text) => Some(text),
            _ => None,
        }
    }

    /// Its number, if it is of an integer kind.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Int64(value) | Self::Duration(value) => Some(*value),
            Self::Month(value) | Self::Weekday(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// What its own `String()` says.
    pub fn stringer(&self) -> Option<String> {
        match self {
            Self::Duration(nanoseconds) => Some(super::time_layout::duration_text(*nanoseconds)),
            Self::Time(time) => Some(time.to_string()),
            Self::Month(month) => Some(super::time_layout::month_name(*month).to_owned()),
            Self::Weekday(day) => Some(super::time_layout::weekday_name(*day).to_owned()),
            _ => self.go_type()?.text.map(|text| text(self)),
        }
    }
}

impl Map {
    /// An entry; a missing one is the zero value of the element type.
    pub fn get_or_zero(&self, key: &str) -> Value {
        match self.entries.get(key) {
            Some(value) => value.clone(),
            None if self.go_type.strings => Value::text(""),
            None => Value::Nil,
        }
    }
}

impl Struct {
    /// A field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let index = self.go_type.fields.iter().position(|(own, _)| *own == name)?;
        self.values.get(index)
    }
}
