//! Go's dialect by tables, and that shapes agree with the automaton.

use proptest::prelude::*;

use super::*;
use crate::model::matcher::{AnchoredRegex, MatchOp, Matcher};

fn matches(pattern: &str, text: &str) -> bool {
    let regexp = Regexp::parse(pattern, Dot::All).unwrap();
    let by_automaton = regexp.compile_anchored().unwrap().is_match(text);
    let by_shape = Matcher::new(MatchOp::Regex, "a", pattern).unwrap().matches(text);
    if text.is_empty() {
        assert_eq!(regexp.matches_empty(), by_automaton, "{pattern}");
    }
    let wrapped = AnchoredRegex::new(pattern).unwrap().is_match(text);
    assert_eq!((by_shape, wrapped), (by_automaton, by_automaton), "{pattern} {text:?}");
    by_automaton
}

#[test]
fn the_dialect_is_that_of_go() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a.b", &["a\nb", "aäb"], &["ab"]),
        ("(?-s)a.b", &["axb"], &["a\nb"]),
        ("(?-s:a.b).", &["axb\n"], &["a\nb\n"]),
        ("\\d+", &["12"], &["\u{663}"]),
        ("\\w\\W", &["a-", "aä"], &["ä-", "ab"]),
        ("\\s*", &[" \t\n\u{c}\r"], &["\u{b}", "\u{a0}"]),
        ("[[:space:]]", &["\u{b}"], &["\u{a0}", "a"]),
        ("[[:^alpha:]\\d]+", &["1-é"], &["a"]),
        ("[^\\d\\s]+", &["ab"], &["a1", " "]),
        ("[a-]+", &["a-"], &["b"]),
        ("[]a]+", &["]a"], &["["]),
        ("[^]a]", &["b"], &["]", "a"]),
        ("[&&~~-]+", &["&~-"], &["a"]),
        ("[a[b]+", &["a[b"], &["c"]),
        ("\\ba\\b.*", &["a-b", "aä"], &["ab"]),
        ("a\\B.*", &["ab"], &["a-", "aä"]),
        ("\\Qa.b|c\\E+", &["a.b|c", "a.b|ccc"], &["axb|c"]),
        ("\\101\\x42\\x{43}\\0", &["ABC\0"], &["ABC"]),
        ("\\pN\\p{Greek}\\P{L}\\p{^Lu}", &["1α-a"], &["1α-A", "1a-a"]),
        ("[\\p{Lu}\\d]+", &["A1Ä"], &["a"]),
        ("(?i)straße|k", &["STRAßE", "k", "K", "\u{212a}"], &["STRASSE"]),
        ("(?i)[^k]", &["a"], &["k", "K", "\u{212a}"]),
        ("(?i:A)b", &["ab", "Ab"], &["aB"]),
        ("a(?i)b|c", &["ab", "aB", "C"], &["AB"]),
        ("(?U)a+", &["aaa"], &[""]),
        ("^a$", &["a"], &["a\n"]),
        ("(?m)a$\nb", &["a\nb"], &["ab"]),
        ("\\Aa\\z|^b$", &["a", "b"], &["ab"]),
        ("a{2}|b{1,2}|c{2,}", &["aa", "b", "bb", "ccc"], &["a", "bbb", "c"]),
        ("a{,2}", &["a{,2}"], &["aa"]),
        ("a{01}", &["a{01}"], &["a"]),
        ("x{", &["x{"], &["x"]),
        ("a||b", &["a", "", "b"], &["c"]),
        ("(?:)", &[""], &["a"]),
        ("()*", &[""], &["a"]),
        ("a*?b??", &["aab", ""], &["bca"]),
        ("\\_\\-\\/\\ ", &["_-/ "], &[""]),
        ("# comment", &["# comment"], &[""]),
        ("(?P<n>a)(?P<n>b)(?<m>c)", &["abc"], &["ab"]),
        ("node_.*", &["node_", "node_x\n"], &["nod"]),
        (".*_total", &["a_total", "_total"], &["a_totals"]),
        (".+_total", &["a_total", "ää_total"], &["_total"]),
        (".*(foo|xb).*", &["foo", "xbay"], &["fo"]),
        ("a.*b.*a", &["aba", "abxa"], &["ab", "a"]),
        ("ab.*bca", &["abbca", "abxbca"], &["abca"]),
        ("(ab|a).*b.+c", &["abbxc", "abbc"], &["abc", "ac"]),
        (".*.+.*", &["a"], &[""]),
        ("x[0-9]+y", &["x1y"], &["xy", "x1", "1y"]),
        ("(?i)eu-(west|east)-[12]", &["EU-west-1"], &["eu-west-3"]),
        ("(?i)eu-(west|east)", &["EU-west", "eu-EAST"], &["eu-north"]),
        ("(?i)sk", &["SK", "\u{17f}\u{212a}"], &["s"]),
    ];
    for (pattern, yes, no) in cases {
        for text in *yes {
            assert!(matches(pattern, text), "{pattern} matches {text:?}");
        }
        for text in *no {
            assert!(!matches(pattern, text), "{pattern} does not match {text:?}");
        }
    }
}

/// What Go refuses.
#[rustfmt::skip]
const WRONG: &[&str] = &[
    "(", ")", "a)(b", "(a|b", "[a", "[a-", "[z-a]", "a**", "a*+", "a+{2}", "*", "a|*", "(+)",
    "(?=a)", "(?", "(?i", "(?i-)", "(?P<>a)", "(?P<n", "(?P<a-b>x)", "(?<n", "\\", "a\\", "\\C",
    "\\Z", "\\1", "\\8", "\\xg1", "\\x{}", "\\x{110000}", "\\x{d800}", "\\q", "x{1001}", "x{2,1}",
    "x{9876543210}", "(x{100}){11}", "\\pX", "\\p{Foo}", "\\p{Alphabetic}", "\\p", "\\p{L",
    "[[:foo:]]", "[\\p{x}]", "{2}", "^*{2}",
];

#[test]
fn errors_are_those_of_go() {
    let mut out = String::new();
    for pattern in WRONG {
        let err = Regexp::parse(pattern, Dot::All).err();
        let text = err.map_or_else(|| "fine".to_owned(), |err| err.to_string());
        out.push_str(&format!("{pattern:12} {}\n", text.replace("error parsing regexp: ", "")));
    }
    insta::assert_snapshot!(out, @r"
    (            missing closing ): `(`
    )            unexpected ): `)`
    a)(b         unexpected ): `a)(b`
    (a|b         missing closing ): `(a|b`
    [a           missing closing ]: `[a`
    [a-          missing closing ]: `[a-`
    [z-a]        invalid character class range: `z-a`
    a**          invalid nested repetition operator: `**`
    a*+          invalid nested repetition operator: `*+`
    a+{2}        invalid nested repetition operator: `+{2}`
    *            missing argument to repetition operator: `*`
    a|*          missing argument to repetition operator: `*`
    (+)          missing argument to repetition operator: `+`
    (?=a)        invalid or unsupported Perl syntax: `(?=`
    (?           invalid or unsupported Perl syntax: `(?`
    (?i          invalid or unsupported Perl syntax: `(?i`
    (?i-)        invalid or unsupported Perl syntax: `(?i-)`
    (?P<>a)      invalid named capture: `(?P<>`
    (?P<n        invalid named capture: `(?P<n`
    (?P<a-b>x)   invalid named capture: `(?P<a-b>`
    (?<n         invalid named capture: `(?<n`
    \            trailing backslash at end of expression: ``
    a\           trailing backslash at end of expression: ``
    \C           invalid escape sequence: `\C`
    \Z           invalid escape sequence: `\Z`
    \1           invalid escape sequence: `\1`
    \8           invalid escape sequence: `\8`
    \xg1         invalid escape sequence: `\xg`
    \x{}         invalid escape sequence: `\x{}`
    \x{110000}   invalid escape sequence: `\x{110000`
    \x{d800}     invalid escape sequence: `\x{d800}`
    \q           invalid escape sequence: `\q`
    x{1001}      invalid repeat count: `{1001}`
    x{2,1}       invalid repeat count: `{2,1}`
    x{9876543210} invalid repeat count: `{9876543210}`
    (x{100}){11} invalid repeat count: `{11}`
    \pX          invalid character class range: `\pX`
    \p{Foo}      invalid character class range: `\p{Foo}`
    \p{Alphabetic} invalid character class range: `\p{Alphabetic}`
    \p           invalid character class range: `\p`
    \p{L         invalid character class range: `\p{L`
    [[:foo:]]    invalid character class range: `[:foo:]`
    [\p{x}]      invalid character class range: `\p{x}`
    {2}          missing argument to repetition operator: `{2}`
    ^*{2}        invalid nested repetition operator: `*{2}`
    ");
    let shown = |regex: Result<(), RegexError>| regex.unwrap_err().to_string();
    let relabelling = AnchoredRegex::new("(").map(drop);
    insta::assert_snapshot!(shown(relabelling), @"error parsing regexp: missing closing ): `^(?s:()$`");
    let deep = "(".repeat(300);
    assert!(shown(Regexp::parse(&deep, Dot::All).map(drop)).contains("nests too deeply"));
    // As in Go, a quotation that does not end takes in the parenthesis around it.
    assert!(Regexp::parse("\\Qa.b", Dot::All).is_ok());
    assert!(AnchoredRegex::new("\\Qa.b").is_err());
}

#[test]
fn shapes_are_found() {
    let shape = |pattern| Regexp::parse(pattern, Dot::All).unwrap().shape();
    let literals =
        |texts: &[&str]| Shape::Literals(texts.iter().map(|text| (*text).to_owned()).collect());
    assert_eq!(shape("b|a|"), literals(&["", "a", "b"]));
    assert_eq!(shape("x(a|b[12])?"), literals(&["x", "xa", "xb1", "xb2"]));
    assert_eq!(shape("^(?:a\\.b)$"), literals(&["a.b"]));
    assert!(matches!(shape("(?i)a-b"), Shape::AsciiFolded(_)));
    assert!(matches!(shape("a.*b"), Shape::Pieces(_)));
    assert!(matches!(shape("(.*)"), Shape::Pieces(_)));
    let general = |prefix: &str, suffix: &str| Shape::General {
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
    };
    assert_eq!(shape("node_(a|b)\\d(foo|goo)"), general("node_", "oo"));
    assert_eq!(shape("(?i)a\\d"), general("", ""));
    assert_eq!(shape("ab*"), general("a", ""));
    // No list is made of what is short but means much.
    assert_eq!(shape("[a-z][a-z][a-z]"), general("", ""));
}

#[test]
fn prefixes_are_those_of_every_match() {
    let cases = [
        ("node_.*", "node_"),
        ("node_(a|b).*", "node_"),
        ("node_(a|b)+|c", ""),
        ("ab?.*", "a"),
        ("ab+", "a"),
        ("äö*x", "ä"),
        ("(?i)abc.*", ""),
        ("abc[|]d.*", "abc|d"),
        (".*", ""),
        ("(äa|äb)\\d", "ä"),
    ];
    for (source, prefix) in cases {
        let matcher = Matcher::new(MatchOp::Regex, "a", source).unwrap();
        assert_eq!(matcher.regex_prefix(), prefix, "{source}");
    }
}

#[test]
fn groups_are_expanded_as_in_go() {
    let expand = |pattern, text, template| {
        AnchoredRegex::new(pattern).unwrap().expand(text, template).unwrap()
    };
    assert_eq!(expand("(?P<n>a)|(?P<n>b)", "b", "$n$1$2"), "bb");
    assert_eq!(expand("(a)", "a", "$01|${1}"), "|a");
    assert_eq!(expand("(.*)", "x\n", "$1-$0-$2-${1}"), "x\n-x\n--x\n");
    assert_eq!(expand("a(.*)b", "axb", "$1"), "x");
    let compiled = Regexp::parse("(?P<x>b+)", Dot::Line).unwrap().compile().unwrap();
    assert_eq!(compiled.replace_all("abbabc", "<$x>"), "a<bb>a<b>c");
}

/// Expressions over few letters, so that texts often match.
fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["a", "b", "k", "S", "ä", "\\n", "-"]),
        prop::sample::select(vec![
            ".*", ".+", ".", "[ab]", "[^a]", "\\d", "(?i:k)", "(?i:[s])", ""
        ]),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join("|"))),
            inner.clone().prop_map(|part| format!("(?:{part})?")),
            inner.clone().prop_map(|part| format!("(?:{part})*")),
            inner.prop_map(|part| format!("(?i:{part})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shapes_agree_with_the_automaton(
        pattern in pattern(),
        texts in prop::collection::vec("[abkKsSſä\\n1\u{212a}-]{0,6}", 8),
    ) {
        for text in &texts {
            matches(&pattern, text);
        }
    }

    #[test]
    fn no_text_upsets_the_parser(pattern in "[a(){}\\[\\]\\\\|*+?^$.,:<>P=!ims\\-U0-9xpQEäL]{0,24}") {
        // What is accepted, the crate takes as well.
        if let Ok(regexp) = Regexp::parse(&pattern, Dot::All)
            && let Err(err) = regexp.compile_anchored()
        {
            prop_assert!(err.to_string().contains("expression too large"), "{}", err);
        }
    }
}
