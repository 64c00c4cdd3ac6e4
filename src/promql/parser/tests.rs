//! What parses, how it prints, and the words with which the rest is refused.

use std::fmt::Write as _;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::promql::ast::{Boundary, DurationExpr, DurationKind, TimeModifiers};
use crate::promql::lexer::steps;

fn parse_all(query: &str) -> Result<Expr, ParseErrors> {
    parse(query, &ParserOptions::ALL)
}

/// One line per query: what it prints as, or why it is refused.
fn outcome(queries: &[&str]) -> String {
    outcome_of(queries, parse_all)
}

fn outcome_of(queries: &[&str], parse: impl Fn(&str) -> Result<Expr, ParseErrors>) -> String {
    queries.iter().fold(String::new(), |mut out, query| {
        let _ = match parse(query) {
            Ok(expr) => writeln!(out, "{query}  =>  {expr}"),
            Err(err) => writeln!(out, "{query}  =>  {err}"),
        };
        out
    })
}

#[test]
fn operators_bind_as_in_prometheus() {
    /// All parentheses that the grammar implies.
    fn explicit(expr: &Expr) -> String {
        match &expr.kind {
            ExprKind::Binary(binary) => {
                let (lhs, rhs) = (explicit(&binary.lhs), explicit(&binary.rhs));
                format!("({lhs} {} {rhs})", binary.op.as_str())
            }
            ExprKind::Unary { op, expr } => format!("({}{})", op.as_str(), explicit(expr)),
            _ => expr.to_string(),
        }
    }
    for (query, wanted) in [
        ("a + b * c ^ d", "(a + (b * (c ^ d)))"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a % b atan2 c", "((a % b) atan2 c)"),
        ("a or b and c unless d == e", "(a or ((b and c) unless (d == e)))"),
        ("a >/ 1 + 2", "(a >/ (1 + 2))"),
        ("-a ^ b", "(-(a ^ b))"),
        ("-a * b", "((-a) * b)"),
        ("a ^ -b * c", "((a ^ (-b)) * c)"),
        ("-1 ^ 2", "(-(1 ^ 2))"),
        ("- - 1", "1"),
        ("+a", "(+a)"),
        ("a offset 5m + 3", "(a offset 5m + 3)"),
        ("a offset -step() * 2", "(a offset -step() * 2)"),
        ("a offset (5m) * 2", "a offset (5m) * 2"),
        ("-a @ 5", "(-a @ 5.000)"),
    ] {
        assert_eq!(parse_all(query).map(|expr| explicit(&expr)).as_deref(), Ok(wanted), "{query}");
    }
}

#[test]
fn queries_print_as_in_prometheus() {
    assert_snapshot!(outcome(&[
        "1_000", "0x1F", "0755", ".5", "1h30m", "-1h", "+Inf", "NaN", "1e3", "'a\\'b'", "\"\\xff\\n\"", "`\\d+`",
        "foo{b='2',a=~\"1\"}", "{\"my.metric\", \"a b\"!=\"x\"}", "{__name__=~'a.*',}", "sum", "by{by='x'}", "offset offset 1m",
        "anchored{smoothed='1'}", "fill + fill(0) fill", "STEP{}", "a:b",
        "foo[300]", "foo[1d] @ start() offset -5m", "foo anchored @ 1.5 offset 1w", "foo[5m] smoothed", "foo offset 0",
        "foo[5m:30s] @ end()", "foo[1h:]", "foo[((5m)) * 2 - step()]", "foo[max_of(step(), range() / 4):1m + 1]", "foo[-(-5m)]",
        "foo[0.0005]",
        "sum by (a, \"b.c\", on) (x)", "sum(x) by (a)", "sum without () (x)", "topk(5, x)", "count_values without(a) ('v', x)", "avg by () (x)",
        "a and on () b", "a * ignoring() group_left b", "a / on(x,) group_right(y) b", "a == bool b", "a + on(x) fill_right(1m) fill_left(-.5) b",
        "a </ 3", "time() > bool 3", "# only\nup # a comment", "info(x, {})", "label_replace(x, 'a', '$1', 'b', '(.*)')", "max_of(1, 2)",
    ]), @r#"
1_000  =>  1000
0x1F  =>  31
0755  =>  493
.5  =>  0.5
1h30m  =>  1h30m
-1h  =>  -1h
+Inf  =>  +Inf
NaN  =>  NaN
1e3  =>  1000
'a\'b'  =>  "a'b"
"\xff\n"  =>  "\xff\n"
`\d+`  =>  "\\d+"
foo{b='2',a=~"1"}  =>  foo{a=~"1",b="2"}
{"my.metric", "a b"!="x"}  =>  {"a b"!="x",__name__="my.metric"}
{__name__=~'a.*',}  =>  {__name__=~"a.*"}
sum  =>  sum
by{by='x'}  =>  by{by="x"}
offset offset 1m  =>  offset offset 1m
anchored{smoothed='1'}  =>  anchored{smoothed="1"}
fill + fill(0) fill  =>  fill + fill (0) fill
STEP{}  =>  STEP
a:b  =>  a:b
foo[300]  =>  foo[5m]
foo[1d] @ start() offset -5m  =>  foo[1d] @ start() offset -5m
foo anchored @ 1.5 offset 1w  =>  foo @ 1.500 anchored offset 1w
foo[5m] smoothed  =>  foo[5m] smoothed
foo offset 0  =>  foo
foo[5m:30s] @ end()  =>  foo[5m:30s] @ end()
foo[1h:]  =>  foo[1h:]
foo[((5m)) * 2 - step()]  =>  foo[(5m) * 2 - step()]
foo[max_of(step(), range() / 4):1m + 1]  =>  foo[max_of(step(), range() / 4):1m + 1]
foo[-(-5m)]  =>  foo[-(-5m)]
foo[0.0005]  =>  foo[0.0005]
sum by (a, "b.c", on) (x)  =>  sum by (a, "b.c", on) (x)
sum(x) by (a)  =>  sum by (a) (x)
sum without () (x)  =>  sum without () (x)
topk(5, x)  =>  topk(5, x)
count_values without(a) ('v', x)  =>  count_values without (a) ("v", x)
avg by () (x)  =>  avg(x)
a and on () b  =>  a and on () b
a * ignoring() group_left b  =>  a * ignoring () group_left () b
a / on(x,) group_right(y) b  =>  a / on (x) group_right (y) b
a == bool b  =>  a == bool b
a + on(x) fill_right(1m) fill_left(-.5) b  =>  a + on (x) fill_left (-0.5) fill_right (60) b
a </ 3  =>  a </ 3
time() > bool 3  =>  time() > bool 3
# only
up # a comment  =>  up
info(x, {})  =>  info(x, {})
label_replace(x, 'a', '$1', 'b', '(.*)')  =>  label_replace(x, "a", "$1", "b", "(.*)")
max_of(1, 2)  =>  max_of(1, 2)
"#);
}

#[test]
fn errors_of_tokens_bear_the_words_of_prometheus() {
    assert_snapshot!(outcome(&[
        "(1", "1)", "a[5m", "a[", "a]", "a ! b", "a =~ b", "a $", "a\n  + )",
        "'abc", "`abc", "\"\\q\"", "\"\\ud800\"", "\"\\xz\"", "\"a\nb\"", "\"\\777\"", "'\u{fffd}'",
        "5x", "1..2", "1__0", "0x1ee", "1e999", "5m5h", "1y300y", "0b1",
        "foo{", "foo{a!b}", "foo{5='a'}", "foo{a=\"b\"}}", "foo{{",
    ]), @r#"
(1  =>  1:3: parse error: unclosed left parenthesis
1)  =>  1:3: parse error: unexpected right parenthesis ')'
a[5m  =>  1:5: parse error: unclosed left bracket
a[  =>  1:3: parse error: unexpected end of input in duration expression
a]  =>  1:2: parse error: unexpected right bracket ']'
a ! b  =>  1:3: parse error: unexpected character after '!': ' '
a =~ b  =>  1:3: parse error: unexpected character after '=': '~'
a $  =>  1:3: parse error: unexpected character: '$'
a
  + )  =>  2:6: parse error: unexpected right parenthesis ')'
'abc  =>  1:1: parse error: unterminated quoted string
`abc  =>  1:1: parse error: unterminated raw string
"\q"  =>  1:1: parse error: unknown escape sequence U+0071 'q'
"\ud800"  =>  1:1: parse error: escape sequence is an invalid Unicode code point
"\xz"  =>  1:1: parse error: illegal character U+007A 'z' in escape sequence
"a
b"  =>  1:1: parse error: unterminated quoted string
"\777"  =>  1:1: parse error: escape sequence is an invalid Unicode code point
'�'  =>  1:1: parse error: invalid UTF-8 rune
5x  =>  1:1: parse error: bad number or duration syntax: "5"
1..2  =>  1:1: parse error: bad number or duration syntax: "1.."
1__0  =>  1:1: parse error: bad number or duration syntax: "1__"
0x1ee  =>  1:1: parse error: bad number or duration syntax: "0x1ee"
1e999  =>  1:1: parse error: error parsing number: strconv.ParseFloat: parsing "1e999": value out of range
5m5h  =>  1:1: parse error: not a valid duration string: "5m5h"
1y300y  =>  1:1: parse error: bad number or duration syntax: "1y300"
0b1  =>  1:1: parse error: bad number or duration syntax: "0"
foo{  =>  1:5: parse error: unexpected end of input inside braces
foo{a!b}  =>  1:6: parse error: unexpected character after '!' inside braces: 'b'
foo{5='a'}  =>  1:5: parse error: unexpected character inside braces: '5'
foo{a="b"}}  =>  1:11: parse error: unexpected character: '}'
foo{{  =>  1:5: parse error: unexpected left brace '{'
"#);
}

#[test]
fn syntax_errors_bear_the_words_of_prometheus() {
    assert_snapshot!(outcome(&[
        "", " # nothing", "foo bar", "1 2", "()", "a +", "a + * b", "== 1", "a = b",
        "foo{,}", "foo{a}", "foo{a b}", "foo{a=}", "foo{a=b}", "foo{a='b' c='d'}", "foo{a='b' or c='d'}", "foo{a=~'('}", "{\"a\" \"b\"}",
        "sum by a (x)", "sum by (a b) (x)", "sum by (1) (x)", "sum by ('') (x)", "sum by (without) (x)", "sum by (x) y", "sum(x y)", "sum foo", "sum()",
        "sum(a, b)", "topk(x)", "sum(x) by (a) by (b)", "a + on b", "a + group_left(x) b", "(a + on(x) group_left ) b", "a + fill(x) b", "bool", "on",
        "foo(", "foo()", "rate(x,)", "rate(,x)", "rate(x y)", "Rate(x[5m])", "STEP()", "a:b(x)", "+-", "foo(a, b(,",
    ]), @r#"
  =>  unknown position: parse error: no expression found in input
 # nothing  =>  1:1: parse error: no expression found in input
foo bar  =>  1:5: parse error: unexpected identifier "bar"
1 2  =>  1:3: parse error: unexpected number "2"
()  =>  1:2: parse error: unexpected ")"
a +  =>  1:4: parse error: unexpected end of input
a + * b  =>  1:5: parse error: unexpected <op:*>
== 1  =>  1:1: parse error: unexpected <op:==>
a = b  =>  1:3: parse error: unexpected "="
foo{,}  =>  1:5: parse error: unexpected "," in label matching, expected identifier or "}"
foo{a}  =>  1:6: parse error: unexpected "}" in label matching, expected label matching operator
foo{a b}  =>  1:7: parse error: unexpected identifier "b" in label matching, expected label matching operator
foo{a=}  =>  1:7: parse error: unexpected "}" in label matching, expected string
foo{a=b}  =>  1:7: parse error: unexpected identifier "b" in label matching, expected string
foo{a='b' c='d'}  =>  1:11: parse error: unexpected identifier "c" in label matching, expected "," or "}"
foo{a='b' or c='d'}  =>  1:11: parse error: unexpected identifier "or" in label matching, expected "," or "}"
foo{a=~'('}  =>  1:5: parse error: error parsing regexp: missing closing ): `(`
{"a" "b"}  =>  1:6: parse error: unexpected string "\"b\"" in label matching, expected "," or "}"
sum by a (x)  =>  1:8: parse error: unexpected identifier "a" in grouping opts, expected "("
sum by (a b) (x)  =>  1:11: parse error: unexpected identifier "b" in grouping opts, expected "," or ")"
sum by (1) (x)  =>  1:9: parse error: unexpected number "1" in grouping opts, expected label
sum by ('') (x)  =>  1:9: parse error: invalid label name for grouping: ""
sum by (without) (x)  =>  1:9: parse error: unexpected <without> in grouping opts, expected label
sum by (x) y  =>  1:12: parse error: unexpected identifier "y" in aggregation
sum(x y)  =>  1:7: parse error: unexpected identifier "y" in aggregation
sum foo  =>  1:5: parse error: unexpected identifier "foo"
sum()  =>  1:1: parse error: no arguments for aggregate expression provided
sum(a, b)  =>  1:1: parse error: wrong number of arguments for aggregate expression provided, expected 1, got 2
topk(x)  =>  1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1
sum(x) by (a) by (b)  =>  1:15: parse error: unexpected <by>
a + on b  =>  1:8: parse error: unexpected identifier "b" in grouping opts, expected "("
a + group_left(x) b  =>  1:5: parse error: unexpected <group_left>
(a + on(x) group_left ) b  =>  1:23: parse error: unexpected ")" in grouping opts, expected "("
a + fill(x) b  =>  1:10: parse error: unexpected identifier "x"
bool  =>  1:1: parse error: unexpected <bool>
on  =>  1:1: parse error: unexpected <on>
foo(  =>  1:5: parse error: unclosed left parenthesis
foo()  =>  1:1: parse error: unknown function with name "foo"
rate(x,)  =>  1:7: parse error: trailing commas not allowed in function call args
rate(,x)  =>  1:6: parse error: unexpected ","
rate(x y)  =>  1:8: parse error: unexpected identifier "y"
Rate(x[5m])  =>  1:1: parse error: unknown function with name "Rate"
STEP()  =>  1:1: parse error: unknown function with name "STEP"
a:b(x)  =>  1:4: parse error: unexpected "("
+-  =>  1:3: parse error: unexpected end of input
foo(a, b(,  =>  1:10: parse error: unexpected ","
"#);
}

#[test]
fn modifier_errors_bear_the_words_of_prometheus() {
    assert_snapshot!(outcome(&[
        "foo offset", "foo offset x", "foo offset 1m offset 2m", "foo offset 0 offset 2m", "1 offset 1m", "foo offset 1e20", "foo offset NaN", "foo offset Inf",
        "foo offset (5m) + bar", "foo offset +-1m", "foo offset -", "foo offset min_of(1, 2", "foo offset start()",
        "foo @", "foo @ x", "foo @ start", "foo @ 1 @ 2", "1 @ 5", "foo @ Inf", "foo @ 1e19", "foo @ -5m",
        "foo[]", "foo[x]", "foo[0]", "foo[-5m]", "foo[5m][5m]", "foo[5m] [5m:]", "foo offset 1m [5m]", "foo @ 1 [5m]", "sum(foo)[5m]", "foo[5m:0]",
        "foo[5m:1m", "foo[5m 1m]", "foo[5m:1m 1m]", "foo[5m:)]", "foo[5m / 0]", "foo[5m % 0s]", "foo[1e20]", "foo[300y]", "foo[5m:1m:1m]", "foo[step():1m]",
        "foo[5m + ]", "foo[5m # c\n]", "foo[ # c\n 5m]", "foo[[5m]]", "foo[5hs]", "foo[\"5m\"]", "foo[.5]",
        "foo anchored smoothed", "foo[5m:] anchored", "sum(foo) smoothed", "1 anchored",
    ]), @r#"
foo offset  =>  1:11: parse error: unexpected end of input in offset, expected number, duration, step(), or range()
foo offset x  =>  1:12: parse error: unexpected identifier "x" in offset, expected number, duration, step(), or range()
foo offset 1m offset 2m  =>  1:1: parse error: offset may not be set multiple times
foo offset 0 offset 2m  =>  foo offset 2m
1 offset 1m  =>  1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery
foo offset 1e20  =>  1:12: parse error: duration out of range
foo offset NaN  =>  1:12: parse error: duration out of range
foo offset Inf  =>  1:12: parse error: duration out of range
foo offset (5m) + bar  =>  1:19: parse error: unexpected identifier "bar" in offset, expected number, duration, step(), or range()
foo offset +-1m  =>  foo offset -1m
foo offset -  =>  1:13: parse error: unexpected end of input in offset, expected number, duration, step(), or range()
foo offset min_of(1, 2  =>  1:23: parse error: unclosed left parenthesis
foo offset start()  =>  1:12: parse error: unexpected "start" in offset, expected number, duration, step(), or range()
foo @  =>  1:6: parse error: unexpected end of input in @, expected timestamp
foo @ x  =>  1:7: parse error: unexpected identifier "x" in @, expected timestamp
foo @ start  =>  1:12: parse error: unexpected end of input in @, expected timestamp
foo @ 1 @ 2  =>  1:1: parse error: @ <timestamp> may not be set multiple times
1 @ 5  =>  1:1: parse error: @ modifier must be preceded by an instant vector selector or range vector selector or a subquery
foo @ Inf  =>  1:1: parse error: timestamp out of bounds for @ modifier: +Inf
foo @ 1e19  =>  1:1: parse error: timestamp out of bounds for @ modifier: 10000000000000000000.000000
foo @ -5m  =>  foo @ -300.000
foo[]  =>  1:5: parse error: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()
foo[x]  =>  1:5: parse error: unexpected character in duration expression: 'x'
foo[0]  =>  1:5: parse error: duration must be greater than 0
foo[-5m]  =>  1:5: parse error: duration must be greater than 0
foo[5m][5m]  =>  1:8: parse error: ranges only allowed for vector selectors
foo[5m] [5m:]  =>  1:1: parse error: subquery is only allowed on instant vector, got matrix instead
foo offset 1m [5m]  =>  1:15: parse error: no offset modifiers allowed before range
foo @ 1 [5m]  =>  1:9: parse error: no @ modifiers allowed before range
sum(foo)[5m]  =>  1:9: parse error: ranges only allowed for vector selectors
foo[5m:0]  =>  1:8: parse error: duration must be greater than 0
foo[5m:1m  =>  1:10: parse error: unclosed left bracket
foo[5m 1m]  =>  1:8: parse error: unexpected duration "1m" in subquery or range, expected ":" or "]"
foo[5m:1m 1m]  =>  1:11: parse error: unexpected duration "1m" in subquery selector, expected "]"
foo[5m:)]  =>  1:9: parse error: unexpected right parenthesis ')'
foo[5m / 0]  =>  1:8: parse error: division by zero
foo[5m % 0s]  =>  1:8: parse error: modulo by zero
foo[1e20]  =>  1:5: parse error: duration out of range
foo[300y]  =>  1:5: parse error: duration out of range
foo[5m:1m:1m]  =>  1:10: parse error: unexpected colon ':'
foo[step():1m]  =>  1:12: parse error: unexpected colon before duration in duration expression
foo[5m + ]  =>  1:10: parse error: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()
foo[5m # c
]  =>  foo[5m]
foo[ # c
 5m]  =>  1:6: parse error: unexpected character in duration expression: '#'
foo[[5m]]  =>  1:5: parse error: unexpected character in duration expression: '['
foo[5hs]  =>  1:5: parse error: unknown unit "hs" in duration "5hs"
foo["5m"]  =>  1:5: parse error: unexpected character in duration expression: '"'
foo[.5]  =>  foo[500ms]
foo anchored smoothed  =>  1:1: parse error: anchored and smoothed modifiers cannot be used together
foo[5m:] anchored  =>  1:1: parse error: anchored modifier is not supported for subqueries
sum(foo) smoothed  =>  1:1: parse error: smoothed modifier not implemented
1 anchored  =>  1:1: parse error: anchored modifier not implemented
"#);
}

#[test]
fn type_errors_bear_the_words_of_prometheus() {
    assert_snapshot!(outcome(&[
        "1 == 1", "1 and 1", "a and 1", "1 + on(x) a", "1 + fill(0) a", "a and fill(0) b", "a and on(x) group_left(y) b", "a + on(x) group_left(x) b",
        "a + bool b", "'a' + 1", "a[5m] + 1", "-'a'", "+a[5m]", "1[5m:]", "a[5m:][5m:]", "{}", "{a=''}", "{a=~'.*'}", "foo{__name__='bar'}",
        "rate(foo)", "rate(foo[5m], 1)", "clamp(foo, 1)", "round()", "round(a, 1, 2)", "label_join(a, 'b')", "histogram_quantiles(a, 'b', 1,2,3,4,5,6,7,8,9,10,11)",
        "time(1)", "sum('a')", "topk('a', b)", "count_values(1, b)", "limitk('x', a)", "info(a, b)", "info(a, {b='c'} == 1)", "info(a, 1)", "ln(0)", "sort_by_label(a, b)",
        "rate(rate(a))", "a +\n rate(b)",
    ]), @r#"
1 == 1  =>  1:3: parse error: comparisons between scalars must use BOOL modifier
1 and 1  =>  1:1: parse error: set operator "and" not allowed in binary scalar expression
a and 1  =>  1:1: parse error: set operator "and" not allowed in binary scalar expression
1 + on(x) a  =>  1:1: parse error: vector matching only allowed between instant vectors
1 + fill(0) a  =>  1:1: parse error: filling in missing series only allowed between instant vectors
a and fill(0) b  =>  1:1: parse error: filling in missing series not allowed for set operators
a and on(x) group_left(y) b  =>  1:1: parse error: no grouping allowed for "and" operation
a + on(x) group_left(x) b  =>  1:3: parse error: label "x" must not occur in ON and GROUP clause at once
a + bool b  =>  1:3: parse error: bool modifier can only be used on comparison operators
'a' + 1  =>  1:1: parse error: binary expression must contain only scalar and instant vector types
a[5m] + 1  =>  1:1: parse error: binary expression must contain only scalar and instant vector types
-'a'  =>  1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got "string"
+a[5m]  =>  1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got "range vector"
1[5m:]  =>  1:1: parse error: subquery is only allowed on instant vector, got scalar instead
a[5m:][5m:]  =>  1:1: parse error: subquery is only allowed on instant vector, got matrix instead
{}  =>  1:1: parse error: vector selector must contain at least one non-empty matcher
{a=''}  =>  1:1: parse error: vector selector must contain at least one non-empty matcher
{a=~'.*'}  =>  1:1: parse error: vector selector must contain at least one non-empty matcher
foo{__name__='bar'}  =>  1:1: parse error: metric name must not be set twice: "foo" or "bar"
rate(foo)  =>  1:6: parse error: expected type range vector in call to function "rate", got instant vector
rate(foo[5m], 1)  =>  1:1: parse error: expected 1 argument(s) in call to "rate", got 2
clamp(foo, 1)  =>  1:1: parse error: expected 3 argument(s) in call to "clamp", got 2
round()  =>  1:1: parse error: expected at least 1 argument(s) in call to "round", got 0
round(a, 1, 2)  =>  1:1: parse error: expected at most 2 argument(s) in call to "round", got 3
label_join(a, 'b')  =>  1:1: parse error: expected at least 3 argument(s) in call to "label_join", got 2
histogram_quantiles(a, 'b', 1,2,3,4,5,6,7,8,9,10,11)  =>  1:1: parse error: expected at most 12 argument(s) in call to "histogram_quantiles", got 13
time(1)  =>  1:1: parse error: expected 0 argument(s) in call to "time", got 1
sum('a')  =>  1:5: parse error: expected type instant vector in aggregation expression, got string
topk('a', b)  =>  1:6: parse error: expected type scalar in aggregation parameter, got string
count_values(1, b)  =>  1:14: parse error: expected type string in aggregation parameter, got scalar
limitk('x', a)  =>  1:8: parse error: expected type scalar in aggregation parameter, got string
info(a, b)  =>  1:9: parse error: expected label selectors only, got vector selector instead
info(a, {b='c'} == 1)  =>  1:9: parse error: expected label selectors only
info(a, 1)  =>  1:1: parse error: expected type instant vector in call to function "info", got scalar
ln(0)  =>  1:4: parse error: expected type instant vector in call to function "ln", got scalar
sort_by_label(a, b)  =>  1:18: parse error: expected type string in call to function "sort_by_label", got instant vector
rate(rate(a))  =>  1:11: parse error: expected type range vector in call to function "rate", got instant vector
a +
 rate(b)  =>  2:7: parse error: expected type range vector in call to function "rate", got instant vector
"#);
}

#[test]
fn experiments_need_their_options() {
    let none = ParserOptions {
        experimental_functions: false,
        duration_expressions: false,
        extended_range_selectors: false,
        binop_fill_modifiers: false,
    };
    assert_snapshot!(outcome_of(&[
        "info(a)", "step()", "limitk(1, a)", "limit_ratio(0.5, a)", "a + fill(0) b", "a anchored", "a[5m] smoothed", "a[5m + 1m]", "a[(5m)]", "a[step()]",
        "a offset -(5m)", "a offset -step()", "a offset min_of(1m, 2m)",
    ], |query| parse(query, &none)), @r#"
info(a)  =>  1:1: parse error: function "info" is not enabled
step()  =>  1:1: parse error: function "step" is not enabled
limitk(1, a)  =>  1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions
limit_ratio(0.5, a)  =>  1:1: parse error: limit_ratio() is experimental and must be enabled with --enable-feature=promql-experimental-functions
a + fill(0) b  =>  1:1: parse error: binop fill modifiers are experimental and not enabled
a anchored  =>  1:1: parse error: anchored modifier is experimental and not enabled
a[5m] smoothed  =>  1:1: parse error: smoothed modifier is experimental and not enabled
a[5m + 1m]  =>  1:3: parse error: experimental duration expression is not enabled
a[(5m)]  =>  1:4: parse error: experimental duration expression is not enabled
a[step()]  =>  1:3: parse error: experimental duration expression is not enabled
a offset -(5m)  =>  a offset -(5m)
a offset -step()  =>  1:11: parse error: experimental duration expression is not enabled
a offset min_of(1m, 2m)  =>  1:10: parse error: experimental duration expression is not enabled
"#);
}

#[test]
fn selectors_of_match_parameters_have_no_modifiers() {
    let check = |text: &str| match parse_metric_selector(text, &ParserOptions::ALL) {
        Ok(matchers) => format!("{matchers:?}"),
        Err(err) => err.to_string(),
    };
    assert_snapshot!(check("up{a='b',c!~'d'}"), @r#"[a="b", c!~"d", __name__="up"]"#);
    assert_snapshot!(check("{'my.metric'}"), @r#"[__name__="my.metric"]"#);
    assert_snapshot!(check("sum"), @r#"[__name__="sum"]"#);
    assert_snapshot!(check("up offset 5m"), @"1:4: parse error: unexpected <offset>");
    assert_snapshot!(check("up @ 5"), @"1:4: parse error: unexpected <op:@>");
    assert_snapshot!(check("sum(up)"), @r#"1:4: parse error: unexpected "(""#);
    assert_snapshot!(check(""), @"unknown position: parse error: unexpected end of input");
    assert_snapshot!(check("{}"), @"match[] must contain at least one non-empty matcher");
    assert_snapshot!(check("{a=''}"), @"match[] must contain at least one non-empty matcher");
    assert_snapshot!(check("{a=~'('}"), @"1:2: parse error: error parsing regexp: missing closing ): `(`");
}

#[test]
fn metrics_are_names_with_labels() {
    let check = |text: &str| match parse_metric(text) {
        Ok(labels) => labels.to_string(),
        Err(err) => err.to_string(),
    };
    assert_snapshot!(check("up{b='1', a=\"2\",}"), @r#"{__name__="up", a="2", b="1"}"#);
    assert_snapshot!(check("{'my.metric', 'a b'='c'}"), @r#"{__name__="my.metric", "a b"="c"}"#);
    assert_snapshot!(check(""), @"{}");
    assert_snapshot!(check("up{a!='b'}"), @r#"1:5: parse error: unexpected <op:!=> in label set, expected "=""#);
    assert_snapshot!(check("up{a='b'"), @"1:9: parse error: unexpected end of input inside braces");
    assert_snapshot!(check("up{a}"), @r#"1:5: parse error: unexpected "}" in label set, expected "=""#);
    assert_snapshot!(check("up 5"), @r#"1:4: parse error: unexpected number "5""#);
}

#[test]
fn nodes_know_their_place() {
    let query = "sum by (a) (rate(foo{b='c'}[5m] offset 1h)) + -(2)";
    let mut places = Vec::new();
    parse_all(query).unwrap().walk(&mut |expr| places.push(&query[expr.span.start..expr.span.end]));
    assert_eq!(
        places,
        [
            query,
            "sum by (a) (rate(foo{b='c'}[5m] offset 1h))",
            "rate(foo{b='c'}[5m] offset 1h)",
            "foo{b='c'}[5m] offset 1h",
            "foo{b='c'}",
            "-(2)",
            "(2)",
            "2",
        ]
    );
    let mut params = Vec::new();
    parse_all("topk(scalar(a), b)").unwrap().walk(&mut |expr| params.push(expr.to_string()));
    assert_eq!(params, ["topk(scalar(a), b)", "b", "scalar(a)", "a"]);
}

/// Runs on half the stack of a worker thread: whoever parses has used some of it.
fn on_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK_BYTES / 2).spawn(run).unwrap().join().unwrap();
}

#[test]
fn depth_is_bounded_and_what_passes_is_safe() {
    let shapes: [(&str, &str, &str); 10] = [
        ("(", "a", ")"),
        ("-", "a", ""),
        ("sum(", "a", ")"),
        ("topk by (x) (1, ", "a", ")"),
        ("abs(", "a", ")"),
        ("a + ", "a", ""),
        ("a ^ ", "a", ""),
        ("a or on (x) (", "a", ")"),
        ("sum_over_time(", "a", "[5m:1m])"),
        ("", "a[1m", " + 1m"),
    ];
    on_small_stack(move || {
        for (before, inner, after) in shapes {
            let close = if inner == "a" { "" } else { "]" };
            let build = |count: usize| {
                format!("{}{inner}{}{close}", before.repeat(count), after.repeat(count))
            };
            // The deepest that passes, found by halving.
            let (mut passes, mut fails) = (1, DEPTH_MAX + 1);
            while passes + 1 < fails {
                let middle = usize::midpoint(passes, fails);
                match parse_all(&build(middle)) {
                    Ok(_) => passes = middle,
                    Err(_) => fails = middle,
                }
            }
            assert!(DEPTH_MAX / 3 < passes, "{before}: {passes}");
            let expr = parse_all(&build(passes)).unwrap();
            let again = parse_all(&expr.to_string()).unwrap();
            assert_eq!(again.clone().to_string(), expr.to_string());
            expr.walk(&mut |expr| assert!(!format!("{:?}", expr.value_type()).is_empty()));
            for count in [passes + 1, 10_000, 100_000] {
                let message = parse_all(&build(count)).unwrap_err().to_string();
                assert!(message.ends_with("expression nests deeper than 500 levels"), "{message}");
            }
        }
    });
}

#[test]
fn long_queries_take_linear_time() {
    const COUNT: usize = 100_000;
    let labels = "a,".repeat(COUNT);
    for query in [
        format!("{{{}}}", "a='b',".repeat(COUNT)),
        format!("label_join(a, 'b', 'c'{})", ", 'd'".repeat(COUNT)),
        format!("sum by ({labels}) (a)"),
        format!("a + on({labels}) group_left({}) b", "c,".repeat(COUNT)),
        format!("a{}", " ".repeat(COUNT)),
        format!("a{}", "#\n".repeat(COUNT)),
        format!("'{}'", "\\x41".repeat(COUNT)),
    ] {
        let (parsed, steps) = steps::of(|| parse_all(&query).unwrap());
        assert!(steps <= 64 * query.len(), "{}: {steps}", &query[..20]);
        assert!(parsed.to_string().len() < 10 * query.len());
    }
    let errors = parse_all(&"fill ".repeat(COUNT)).unwrap_err();
    assert_eq!(errors.to_string(), "1:6: parse error: unexpected identifier \"fill\"");
    let errors = parse_all(&format!("a + on({labels}) group_left({labels}) b")).unwrap_err();
    assert_eq!(errors.errors().len(), ERRORS_MAX);
    let errors = parse_all(&format!("abs(a{})", ",".repeat(COUNT))).unwrap_err();
    assert_eq!(errors.errors().len(), ERRORS_MAX);
}

fn label() -> impl Strategy<Value = String> {
    static WORDS: [&str; 10] =
        ["a", "by", "offset", "sum", "step", "anchored", "le", "__name2__", "\"x y\"", "'é'"];
    prop::sample::select(WORDS.as_slice()).prop_map(str::to_owned)
}

fn label_list() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 0..3).prop_map(|labels| format!("({})", labels.join(", ")))
}

fn duration() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("step()".to_owned()),
        Just("range()".to_owned()),
        (1..5000_u32).prop_map(|seconds| seconds.to_string()),
        (1..500_u32, prop::sample::select(["ms", "s", "m", "h", "d"].as_slice()))
            .prop_map(|(count, unit)| format!("{count}{unit}")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.clone().prop_map(|inner| format!("-({inner})")),
            (
                inner.clone(),
                prop::sample::select(["+", "-", "*", "/", "%", "^"].as_slice()),
                inner.clone()
            )
                .prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
            (inner.clone(), inner).prop_map(|(lhs, rhs)| format!("min_of({lhs}, {rhs})")),
        ]
    })
}

fn time_modifiers() -> impl Strategy<Value = String> {
    let offset = prop_oneof![
        Just(String::new()),
        duration().prop_map(|duration| format!(" offset ({duration})")),
        (1..5000_u32).prop_map(|seconds| format!(" offset -{seconds}s")),
    ];
    let at = prop::sample::select(["", " @ start()", " @ end()", " @ -1.5", " @ 1h"].as_slice());
    (at, offset).prop_map(|(at, offset)| format!("{at}{offset}"))
}

fn selector_text() -> impl Strategy<Value = String> {
    let op = prop::sample::select(["=", "!=", "=~", "!~"].as_slice());
    let value = prop::sample::select(["'x'", "\"\\\"\\n\"", "`a|b`", "'é.*'"].as_slice());
    let matchers = prop::collection::vec((label(), op, value), 0..3);
    let name =
        prop::sample::select(["foo", "a:b", "sum", "by", "and", "start", "smoothed"].as_slice());
    (name, matchers).prop_map(|(name, matchers)| {
        let matchers: Vec<_> =
            matchers.into_iter().map(|(label, op, value)| format!("{label} {op}{value}")).collect();
        format!("{name} {{{}}}", matchers.join(" ,"))
    })
}

fn scalar_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>()
            .prop_filter("a literal", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        // Infinity prints with a sign, as it does in Prometheus; a `^` behind it would take that for
        // an operator, hence the parentheses.
        prop::sample::select(
            ["time()", "1h30m", "(Inf)", "0x1F", "-step()", "(2)", "-3", "+4"].as_slice()
        )
        .prop_map(str::to_owned),
    ]
}

/// Vector expressions that pass the type check.
fn vector_text() -> impl Strategy<Value = String> {
    let leaf = (
        selector_text(),
        time_modifiers(),
        prop::sample::select(["", " anchored", " smoothed"].as_slice()),
    )
        .prop_map(|(selector, time, boundary)| {
            // An operator behind a parenthesis would belong to the offset.
            format!("({selector}{boundary}{time})")
        });
    leaf.prop_recursive(4, 24, 3, |inner| {
        let op = prop::sample::select(
            ["+", "-", "*", "/", "%", "^", "atan2", "==", "> bool", "</", "!="].as_slice(),
        );
        let set = prop::sample::select(["and", "or", "unless"].as_slice());
        let clause = prop::sample::select(["on", "ignoring"].as_slice());
        let tail = prop::sample::select(
            [
                "",
                " group_left ()",
                " group_right (z)",
                " fill(1)",
                " fill_left (-2.5) fill_right(1e30)",
            ]
            .as_slice(),
        );
        prop_oneof![
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.clone().prop_map(|inner| format!("-{inner}")),
            (label_list(), inner.clone())
                .prop_map(|(labels, inner)| format!("sum by {labels} ({inner})")),
            (label_list(), inner.clone())
                .prop_map(|(labels, inner)| format!("topk(3, {inner}) without {labels}")),
            (inner.clone(), duration(), time_modifiers())
                .prop_map(|(inner, range, time)| format!("rate(({inner})[1s * ({range}):]{time})")),
            (selector_text(), duration(), time_modifiers())
                .prop_map(|(selector, range, time)| format!("rate({selector}[({range})]{time})")),
            (inner.clone(), op, scalar_text())
                .prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
            (inner.clone(), set, inner.clone())
                .prop_map(|(lhs, op, rhs)| format!("{lhs} {op} {rhs}")),
            (inner.clone(), clause, label_list(), tail, inner).prop_map(
                |(lhs, clause, labels, tail, rhs)| format!(
                    "({lhs}) * {clause} {labels}{tail} ({rhs})"
                )
            ),
        ]
    })
}

/// Takes out what printing does not keep: places, the order of matchers, and whether a lone range
/// was written as a number.
fn normalise(expr: &mut Expr) {
    fn lone(duration: &mut DurationExpr) {
        if let DurationKind::Literal { is_duration, .. } = &mut duration.kind {
            *is_duration = true;
        }
        strip(duration);
    }
    fn strip(duration: &mut DurationExpr) {
        duration.span = Span::default();
        match &mut duration.kind {
            DurationKind::Literal { .. } | DurationKind::Step | DurationKind::Range => {}
            DurationKind::MinOf(lhs, rhs)
            | DurationKind::MaxOf(lhs, rhs)
            | DurationKind::Binary { lhs, rhs, .. } => {
                strip(lhs);
                strip(rhs);
            }
            DurationKind::Unary { expr, .. } | DurationKind::Paren(expr) => strip(expr),
        }
    }
    fn time(time: &mut TimeModifiers) {
        time.offset.as_mut().map(lone);
    }
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) => {}
        ExprKind::VectorSelector(selector) => {
            selector.matchers.sort_by_key(ToString::to_string);
            time(&mut selector.time);
        }
        ExprKind::MatrixSelector { selector, range } => {
            normalise(selector);
            lone(range);
        }
        ExprKind::Subquery(subquery) => {
            normalise(&mut subquery.expr);
            lone(&mut subquery.range);
            subquery.step.as_mut().map(lone);
            time(&mut subquery.time);
        }
        ExprKind::Call { args, .. } => args.iter_mut().for_each(normalise),
        ExprKind::Aggregate(aggregate) => {
            normalise(&mut aggregate.expr);
            aggregate.param.as_deref_mut().map(normalise);
        }
        ExprKind::Binary(binary) => {
            normalise(&mut binary.lhs);
            normalise(&mut binary.rhs);
        }
        ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => normalise(expr),
    }
}

/// Whatever it is, it parses or has an error.
fn survives(text: &str) {
    let _ = (parse_metric(text), parse_metric_selector(text, &ParserOptions::ALL));
    match parse_all(text) {
        Ok(expr) => assert!(!expr.to_string().is_empty()),
        Err(err) => assert!(!err.to_string().is_empty()),
    }
}

fn config() -> ProptestConfig {
    // Without a file of seeds: the default would write one into the root.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn printing_and_parsing_are_inverse(text in vector_text()) {
        let mut expr = parse_all(&text).map_err(|err| TestCaseError::fail(format!("{text}: {err}")))?;
        let printed = expr.to_string();
        let mut again = parse_all(&printed).map_err(|err| TestCaseError::fail(format!("{printed}: {err}")))?;
        prop_assert_eq!(again.to_string(), printed);
        normalise(&mut expr);
        normalise(&mut again);
        prop_assert_eq!(format!("{expr:?}"), format!("{again:?}"));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn no_damaged_query_makes_the_parser_panic(
        text in vector_text(),
        cut in any::<prop::sample::Index>(),
        length in 0..4_usize,
        patch in "[-+*/%^=!~<>@\\[\\](){},:;'\"`#\\\\ 0-9a-ex_.é]{0,3}",
    ) {
        let letters: Vec<char> = text.chars().collect();
        let cut = cut.index(letters.len());
        let rest = letters.iter().skip(cut + length);
        let damaged: String = letters.iter().take(cut).copied().chain(patch.chars()).chain(rest.copied()).collect();
        survives(&damaged);
    }
}

#[test]
fn boundaries_reach_the_selector() {
    let ExprKind::MatrixSelector { selector, .. } = parse_all("a[5m] anchored").unwrap().kind
    else {
        panic!("a range selector");
    };
    let ExprKind::VectorSelector(selector) = selector.kind else { panic!("a selector") };
    assert_eq!(selector.boundary, Boundary::Anchored);
}
