//! The table of `PromQL` functions: names, argument types, results.

use super::ast::ValueType;

/// A function's signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: &'static str,
    /// Types of the arguments; the last repeats when `variadic` allows.
    pub arg_types: &'static [ValueType],
    /// 0: exactly `arg_types`; n > 0: the last n of them may be left out … see Prometheus'
    /// `parser.Function`: up to n extra arguments; -1: any number of the last.
    pub variadic: i32,
    /// Type of the result.
    pub return_type: ValueType,
    /// Needs `--enable-feature=promql-experimental-functions`.
    pub experimental: bool,
}
