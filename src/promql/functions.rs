//! The table of `PromQL` functions: names, argument types, results. One row per function of
//! Prometheus 3.14; what they compute is in `eval`.

use std::fmt;

use super::ast::ValueType::{self, Matrix, Scalar, String as Text, Vector};

/// A function's signature.
#[derive(PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: &'static str,
    /// Types of the arguments; the last repeats when `variadic` allows.
    pub arg_types: &'static [ValueType],
    /// 0: exactly `arg_types`. Otherwise the last argument may be left out, and it may repeat:
    /// n > 0 allows up to `arg_types.len() - 1 + n` arguments in all, -1 any number.
    pub variadic: i32,
    /// Type of the result.
    pub return_type: ValueType,
    /// Needs `--enable-feature=promql-experimental-functions`.
    pub experimental: bool,
}

impl Function {
    const fn optional(mut self, count: i32) -> Self {
        self.variadic = count;
        self
    }

    const fn any_more(mut self) -> Self {
        self.variadic = -1;
        self
    }

    const fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }

    /// The fewest arguments a call may have.
    pub fn args_min(&self) -> usize {
        self.arg_types.len() - usize::from(self.variadic != 0)
    }

    /// The most arguments a call may have; `None`: no limit.
    pub fn args_max(&self) -> Option<usize> {
        Some(self.args_min() + usize::try_from(self.variadic).ok()?)
    }

    /// The type of the argument at `index`, also where the last one repeats.
    pub fn arg_type(&self, index: usize) -> Option<ValueType> {
        self.arg_types.get(index).or(self.arg_types.last()).copied()
    }
}

/// The name alone: a syntax tree's dump need not repeat the table.
impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The function of that name; names are case-sensitive.
pub fn lookup(name: &str) -> Option<&'static Function> {
    let at = FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok()?;
    FUNCTIONS.get(at)
}

/// All functions in order of names.
pub fn all() -> &'static [Function] {
    &FUNCTIONS
}

const fn vector(name: &'static str, arg_types: &'static [ValueType]) -> Function {
    Function { name, arg_types, variadic: 0, return_type: Vector, experimental: false }
}

const fn scalar(name: &'static str, arg_types: &'static [ValueType]) -> Function {
    Function { name, arg_types, variadic: 0, return_type: Scalar, experimental: false }
}

static FUNCTIONS: [Function; 90] = [
    vector("abs", &[Vector]),
    vector("absent", &[Vector]),
    vector("absent_over_time", &[Matrix]),
    vector("acos", &[Vector]),
    vector("acosh", &[Vector]),
    vector("asin", &[Vector]),
    vector("asinh", &[Vector]),
    vector("atan", &[Vector]),
    vector("atanh", &[Vector]),
    vector("avg_over_time", &[Matrix]),
    vector("ceil", &[Vector]),
    vector("changes", &[Matrix]),
    vector("clamp", &[Vector, Scalar, Scalar]),
    vector("clamp_max", &[Vector, Scalar]),
    vector("clamp_min", &[Vector, Scalar]),
    vector("cos", &[Vector]),
    vector("cosh", &[Vector]),
    vector("count_over_time", &[Matrix]),
    vector("day_of_month", &[Vector]).optional(1),
    vector("day_of_week", &[Vector]).optional(1),
    vector("day_of_year", &[Vector]).optional(1),
    vector("days_in_month", &[Vector]).optional(1),
    vector("deg", &[Vector]),
    vector("delta", &[Matrix]),
    vector("deriv", &[Matrix]),
    vector("double_exponential_smoothing", &[Matrix, Scalar, Scalar]).experimental(),
    scalar("end", &[]).experimental(),
    vector("exp", &[Vector]),
    vector("first_over_time", &[Matrix]),
    vector("floor", &[Vector]),
    vector("histogram_avg", &[Vector]),
    vector("histogram_count", &[Vector]),
    vector("histogram_fraction", &[Scalar, Scalar, Vector]),
    vector("histogram_quantile", &[Scalar, Vector]),
    vector("histogram_quantiles", &[Vector, Text, Scalar, Scalar]).optional(9).experimental(),
    vector("histogram_stddev", &[Vector]),
    vector("histogram_stdvar", &[Vector]),
    vector("histogram_sum", &[Vector]),
    vector("hour", &[Vector]).optional(1),
    vector("idelta", &[Matrix]),
    vector("increase", &[Matrix]),
    vector("info", &[Vector, Vector]).optional(1).experimental(),
    vector("irate", &[Matrix]),
    vector("label_join", &[Vector, Text, Text, Text]).any_more(),
    vector("label_replace", &[Vector, Text, Text, Text, Text]),
    vector("last_over_time", &[Matrix]),
    vector("ln", &[Vector]),
    vector("log10", &[Vector]),
    vector("log2", &[Vector]),
    vector("mad_over_time", &[Matrix]).experimental(),
    scalar("max_of", &[Scalar, Scalar]).experimental(),
    vector("max_over_time", &[Matrix]),
    scalar("min_of", &[Scalar, Scalar]).experimental(),
    vector("min_over_time", &[Matrix]),
    vector("minute", &[Vector]).optional(1),
    vector("month", &[Vector]).optional(1),
    scalar("pi", &[]),
    vector("predict_linear", &[Matrix, Scalar]),
    vector("present_over_time", &[Matrix]),
    vector("quantile_over_time", &[Scalar, Matrix]),
    vector("rad", &[Vector]),
    scalar("range", &[]).experimental(),
    vector("rate", &[Matrix]),
    vector("resets", &[Matrix]),
    vector("round", &[Vector, Scalar]).optional(1),
    scalar("scalar", &[Vector]),
    vector("sgn", &[Vector]),
    vector("sin", &[Vector]),
    vector("sinh", &[Vector]),
    vector("sort", &[Vector]),
    vector("sort_by_label", &[Vector, Text]).any_more().experimental(),
    vector("sort_by_label_desc", &[Vector, Text]).any_more().experimental(),
    vector("sort_desc", &[Vector]),
    vector("sqrt", &[Vector]),
    scalar("start", &[]).experimental(),
    vector("start_timestamp", &[Vector]).experimental(),
    vector("stddev_over_time", &[Matrix]),
    vector("stdvar_over_time", &[Matrix]),
    scalar("step", &[]).experimental(),
    vector("sum_over_time", &[Matrix]),
    vector("tan", &[Vector]),
    vector("tanh", &[Vector]),
    scalar("time", &[]),
    vector("timestamp", &[Vector]),
    vector("ts_of_first_over_time", &[Matrix]).experimental(),
    vector("ts_of_last_over_time", &[Matrix]).experimental(),
    vector("ts_of_max_over_time", &[Matrix]).experimental(),
    vector("ts_of_min_over_time", &[Matrix]).experimental(),
    vector("vector", &[Scalar]),
    vector("year", &[Vector]).optional(1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in all() {
            assert!(std::ptr::eq(lookup(function.name).unwrap(), function));
        }
        assert_eq!(lookup("Rate"), None);
        assert_eq!(FUNCTIONS.iter().filter(|function| function.experimental).count(), 17);
    }

    #[test]
    fn arity_counts_the_last_type_as_optional() {
        let arity = |name| {
            let function = lookup(name).unwrap();
            (function.args_min(), function.args_max())
        };
        assert_eq!(arity("rate"), (1, Some(1)));
        assert_eq!(arity("time"), (0, Some(0)));
        assert_eq!(arity("round"), (1, Some(2)));
        assert_eq!(arity("label_join"), (3, None));
        assert_eq!(arity("histogram_quantiles"), (3, Some(12)));
    }
}
