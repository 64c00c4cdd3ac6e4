//! Tables of templates and of what Go prints for them.

use super::fmt::sprintf;
use super::notification::{AlertData, Data, Templates};
use super::prometheus::{AlertTemplateData, QuerySample, check_alert_text, expand_alert_text};
use super::time_layout::{Time, duration_text, parse};
use super::value::Value;
use crate::model::labels::Labels;

/// 2009-11-10T23:04:05.006789Z less the microseconds that milliseconds cannot tell.
const NOW_MS: i64 = 1_257_894_245_006;

fn data() -> Data {
    Data {
        receiver: "team a".to_owned(),
        status: "firing".to_owned(),
        alerts: ["a", "b"]
            .map(|job| AlertData {
                status: "firing".to_owned(),
                labels: Labels::from_pairs([("alertname", "Down"), ("job", job)]),
                annotations: Labels::empty(),
                starts_at_ms: NOW_MS,
                ends_at_ms: None,
                generator_url: String::new(),
                fingerprint: String::new(),
            })
            .to_vec(),
        notification_reason: String::new(),
        group_labels: Labels::empty(),
        common_labels: Labels::from_pairs([("alertname", "Down"), ("aaa", "<1>")]),
        common_annotations: Labels::empty(),
        route_labels: Labels::from_pairs([("team", "a")]),
        external_url: "http://am".to_owned(),
    }
}

/// What a notification template prints, or its error.
fn print(text: &str) -> String {
    let expanded = Templates::builtin().expand_text(text, &data(), NOW_MS + 65_000);
    expanded.unwrap_or_else(|err| err.message)
}

fn rows(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        assert_eq!(print(text), *expected, "{text}");
    }
}

#[test]
fn the_language() {
    rows(&[
        ("{{ 1 }}{{- 2 -}} {{ 3 }}", "123"),
        ("a \n{{- /* c */ -}}\n b", "ab"),
        ("{{ $x := 1 }}{{ with 5 }}{{ $x = . }}{{ end }}{{ $x }}", "5"),
        ("{{ with $y := 0 }}a{{ else }}{{ $y }}{{ end }}", "0"),
        ("{{ range $i, $c := list 7 8 }}{{ $i }}{{ $c }};{{ end }}", "07;18;"),
        ("{{ range $c := list 7 8 }}{{ $c }}{{ end }}", "78"),
        ("{{ range $k, $v := dict \"b\" 1 \"a\" 2 }}{{ $k }}{{ $v }}{{ end }}", "a2b1"),
        ("{{ range 0 }}a{{ else }}b{{ end }}", "b"),
        ("{{ range list 1 2 3 }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }}{{ end }}", "13"),
        ("{{ range 9 }}{{ range 9 }}{{ break }}{{ end }}{{ break }}{{ end }}x", "x"),
        ("{{ block \"b\" 3 }}{{ . }}{{ end }}{{ template \"b\" 4 }}", "34"),
        ("{{ (index .Alerts 1).Labels.job | printf \"%s-%s\" \"x\" }}", "x-b"),
        ("{{ .CommonLabels.SortedPairs }}", "alertname=Down, aaa=<1>"),
        ("{{ (list 1 2 | len) | print }}", "2"),
        ("{{ \"\\u00e9\\x41\\101\\n\" }}", "éAA\n"),
        (
            "{{ true | and false }}{{ nil | print }}",
            "template: :1:25: executing \"\" at <nil>: nil is not a command",
        ),
        ("{{ 0b101 }} {{ 0o17 }} {{ 1_0.5 }}", "template: :1: illegal number syntax: \"1_0.5\""),
        ("{{ 0x_1F }} {{ '\\n' }} {{ .5 }} {{ +3 }}", "31 10 0.5 3"),
        (
            "{{ not .Nothing }}",
            "template: :1:7: executing \"\" at <.Nothing>: can't evaluate field Nothing in type *template.Data",
        ),
    ]);
}

#[test]
fn what_does_not_parse() {
    for (text, message) in [
        ("{{ if 1 }}", "1: unexpected EOF"),
        ("a\n{{ else }}", "2: unexpected {{else}}"),
        ("{{ 1i }}", "1: bad number syntax: \"1i\""),
        ("{{ \"a }}", "1: unterminated quoted string"),
        ("{{ `a }}", "1: unterminated raw quoted string"),
        ("{{ (1 }}", "1: unclosed left paren"),
        ("{{ 1) }}", "1: unexpected right paren"),
        ("{{ 1\n", "2: unclosed action started at :1"),
        ("{{/* a }}", "1: unclosed comment"),
        ("{{/* a */ }}", "1: comment ends before closing delimiter"),
        ("{{ 1 | 2 }}", "1: non executable command in pipeline stage 2"),
        ("{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ $x, $y := 1 }}", "1: too many declarations in command"),
        ("{{ range $x, 1 }}{{ end }}", "1: range can only initialize variables"),
        ("{{ template 1 }}", "1: unexpected \"1\" in template clause"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", "1: expected end; found {{else}}"),
        ("{{ nope }}", "1: function \"nope\" not defined"),
        ("{{ 1.a }}", "1: bad number syntax: \"1.a\""),
        ("{{ \"a\".b }}", "1: unexpected . after term \"\\\"a\\\"\""),
        ("{{ # }}", "1: unexpected \"#\" in command"),
        ("{{ 99999999999999999999 }}", "1: integer overflow: \"99999999999999999999\""),
    ] {
        assert_eq!(print(text), format!("template: :{message}"), "{text}");
    }
    assert_eq!(check_alert_text("n", "{{ $value }}"), Ok(()));
    let missing = Err("template: n:1: undefined variable \"$nope\"".to_owned());
    assert_eq!(check_alert_text("n", "{{ $nope }}"), missing);
}

#[test]
fn comparisons_follow_go() {
    rows(&[
        ("{{ eq 1 2 1 }} {{ eq \"a\" \"b\" }} {{ ne true false }}", "true false true"),
        ("{{ lt \"a\" \"b\" }} {{ le 2 2 }} {{ gt 1.5 1.0 }} {{ ge 1 2 }}", "true true true false"),
        (
            "{{ eq .Alerts 1 }}",
            "template: :1:3: executing \"\" at <eq .Alerts 1>: error calling eq: incompatible types for comparison: template.Alerts and int",
        ),
        (
            "{{ lt true false }}",
            "template: :1:3: executing \"\" at <lt true false>: error calling lt: invalid type for comparison",
        ),
        (
            "{{ eq 1 }}",
            "template: :1:3: executing \"\" at <eq 1>: error calling eq: missing argument for comparison",
        ),
        ("{{ eq nil nil }} {{ eq nil 1 }}", "true false"),
        ("{{ or 0 \"\" }}|{{ and 1 \"\" 2 }}|{{ 0 | or 3 }}", "||3"),
    ]);
}

#[test]
fn indexing_and_slicing() {
    rows(&[
        ("{{ index \"abc\" 1 }} {{ slice \"abc\" 1 }} {{ slice \"abc\" 1 2 }}", "98 bc b"),
        ("{{ index (dict \"a\" (list 1 2)) \"a\" 1 }}", "2"),
        (
            "{{ index (list 1) 1 }}",
            "template: :1:3: executing \"\" at <index (list 1) 1>: error calling index: index out of range: 1",
        ),
        (
            "{{ index .CommonLabels 1 }}",
            "template: :1:3: executing \"\" at <index .CommonLabels 1>: error calling index: value has type int; should be string",
        ),
        (
            "{{ slice \"abc\" 2 1 }}",
            "template: :1:3: executing \"\" at <slice \"abc\" 2 1>: error calling slice: invalid slice index: 2 > 1",
        ),
        (
            "{{ len 3 }}",
            "template: :1:3: executing \"\" at <len 3>: error calling len: len of type int",
        ),
    ]);
}

#[test]
fn printf_follows_go() {
    let value = |text: &str| Value::text(text);
    for (format, args, expected) in [
        (
            "%d|%5d|%-5d|%05d|%+d|% d",
            [42; 6].map(Value::Int).to_vec(),
            "42|   42|42   |00042|+42| 42",
        ),
        (
            "%x|%X|%#x|%o|%#o|%b|%c|%U|%q",
            [65; 9].map(Value::Int).to_vec(),
            "41|41|0x41|101|0101|1000001|A|U+0041|'A'",
        ),
        ("%.3d|%6.3d|%-6.3d|", [7; 3].map(Value::Int).to_vec(), "007|   007|007   |"),
        (
            "%v|%g|%e|%f|%.1f|%8.2f|%-8.2f|%08.2f",
            [-1.5; 8].map(Value::Float).to_vec(),
            "-1.5|-1.5|-1.500000e+00|-1.500000|-1.5|   -1.50|-1.50   |-0001.50",
        ),
        (
            "%.3g|%.3g|%.10g|%G",
            [1234.5, 0.000_012_345, 100.0, 1e-10].map(Value::Float).to_vec(),
            "1.23e+03|1.23e-05|100|1E-10",
        ),
        (
            "%v %5.1f %+v %06v",
            [f64::NAN, f64::INFINITY, 1.0, f64::NEG_INFINITY].map(Value::Float).to_vec(),
            "NaN  +Inf +1   -Inf",
        ),
        (
            "%s|%5s|%-5s|%.2s|%q|%x|%X|% x",
            [(); 8].map(|()| value("héy")).to_vec(),
            "héy|  héy|héy  |hé|\"héy\"|68c3a979|68C3A979|68 c3 a9 79",
        ),
        ("%+q|%#q|%#v|%T", [(); 4].map(|()| value("é")).to_vec(), "\"\\u00e9\"|`é`|\"é\"|string"),
        ("%t|%v|%5t", [(); 3].map(|()| Value::Bool(true)).to_vec(), "true|true| true"),
        (
            "%d %s %!|%z",
            vec![value("a"), Value::Int(1), Value::Nil],
            "%!d(string=a) %!s(int=1) %!!(<nil>)|%!z(MISSING)",
        ),
        (
            "%[2]d %[1]d|%[3]*.[2]*[1]f|",
            vec![Value::Float(12.0), Value::Int(2), Value::Int(6)],
            "2 %!d(float64=12)| 12.00|",
        ),
        ("%[5]d %", vec![Value::Int(1)], "%!d(BADINDEX) %!(NOVERB)"),
        ("%*d", vec![value("a"), Value::Int(1)], "%!(BADWIDTH)1"),
        ("100%%", vec![Value::Nil], "100%%!(EXTRA <nil>)"),
        (
            "%v %s %d",
            vec![
                Value::Duration(1_500_000_000),
                Value::Duration(60_000_000_000),
                Value::Duration(5),
            ],
            "1.5s 1m0s 5",
        ),
        (
            "%v %q",
            vec![Value::strings(["a", "b"]), Value::strings(["a", "b"])],
            "[a b] [\"a\" \"b\"]",
        ),
        ("%v %d", vec![Value::Nil, Value::Nil], "<nil> %!d(<nil>)"),
    ] {
        assert_eq!(sprintf(format, &args), expected, "{format}");
    }
}

#[test]
fn times_follow_go_layouts() {
    let time = Time::from_ms(NOW_MS);
    for (layout, expected) in [
        ("2006-01-02T15:04:05.000Z07:00", "2009-11-10T23:04:05.006Z"),
        ("Mon Jan _2 15:04:05 MST 2006", "Tue Nov 10 23:04:05 UTC 2009"),
        ("Monday, 02-Jan-06 03:04PM -0700", "Tuesday, 10-Nov-09 11:04PM +0000"),
        ("January 2 3:4:5 pm __2 002 -07:00:00", "November 10 11:4:5 pm 314 314 +00:00:00"),
        ("15h .999 ,000000 _2006 Month", "23h .006 ,006000 _2009 Month"),
        ("1/2/06 Z0700 .00x", "11/10/09 Z .00x"),
    ] {
        assert_eq!(time.format(layout), expected, "{layout}");
        let printed = time.format("2006-01-02 15:04:05.999999999 -0700 MST");
        assert_eq!(printed, time.to_string());
    }
    for (layout, text, expected) in [
        ("2006-01-02", "2024-02-29", Some("2024-02-29 00:00:00 +0000 UTC")),
        ("2006-01-02", "2023-02-29", None),
        ("Jan 2 2006 3:04PM", "Feb 3 2024 1:05PM", Some("2024-02-03 13:05:00 +0000 UTC")),
        (
            "2006-01-02T15:04:05Z07:00",
            "2024-01-01T00:00:00.5Z",
            Some("2024-01-01 00:00:00.5 +0000 UTC"),
        ),
        ("15:04", "1504", None),
    ] {
        assert_eq!(parse(layout, text).map(|time| time.to_string()).as_deref(), expected, "{text}");
    }
    rows(&[
        (
            "{{ $t := (index .Alerts 0).StartsAt }}{{ $t.Unix }} {{ $t.UnixMilli }} {{ $t.Weekday }} {{ $t.Month }}",
            "1257894245 1257894245006 Tuesday November",
        ),
        ("{{ ((index .Alerts 0).StartsAt.Add 3600000000000).Format \"15:04\" }}", "00:04"),
        ("{{ ((index .Alerts 0).StartsAt.AddDate 0 1 25).Format \"2006-01-02\" }}", "2010-01-04"),
        (
            "{{ since (index .Alerts 0).StartsAt }} {{ (now.Sub (index .Alerts 0).StartsAt).Seconds }}",
            "1m5s 65",
        ),
        (
            "{{ (index .Alerts 0).EndsAt }} {{ (index .Alerts 0).EndsAt.IsZero }}",
            "0001-01-01 00:00:00 +0000 UTC true",
        ),
        (
            "{{ (tz \"America/New_York\" (index .Alerts 0).StartsAt).Format \"15:04 MST -0700\" }}",
            "18:04 EST -0500",
        ),
        (
            "{{ tz \"Nowhere/X\" (index .Alerts 0).StartsAt }}",
            "template: :1:3: executing \"\" at <tz \"Nowhere/X\" (index .Alerts 0).StartsAt>: error calling tz: unknown time zone Nowhere/X",
        ),
    ]);
}

#[test]
fn durations_print_like_go() {
    for (nanoseconds, expected) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (245_000_000_000, "4m5s"),
        (3_600_000_000_000, "1h0m0s"),
        (-90_001_000_000, "-1m30.001s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(duration_text(nanoseconds), expected);
    }
}

#[test]
fn functions_of_notifications() {
    rows(&[
        ("{{ title \"it's a foo-bar\" }} {{ trimSpace \" a \" }}", "It's A Foo-Bar a"),
        ("{{ join \",\" (stringSlice \"a\" \"b\") }} {{ routeLabels \"team\" }}", "a,b a"),
        ("{{ toJson (list 1 1.5 \"<\" nil true) }}", "[1,1.5,\"\\u003c\",null,true]"),
        (
            "{{ toJson (index .Alerts 0) }}",
            "{\"status\":\"firing\",\"labels\":{\"alertname\":\"Down\",\"job\":\"a\"},\"annotations\":{},\"startsAt\":\"2009-11-10T23:04:05.006Z\",\"endsAt\":\"0001-01-01T00:00:00Z\",\"generatorURL\":\"\",\"fingerprint\":\"\"}",
        ),
        (
            "{{ add 1 2 }} {{ div 7 2 }} {{ mul 1.5 2 }} {{ sub \"3\" 1 }} {{ mod 7 4 }}",
            "3 3 3 2 3",
        ),
        (
            "{{ split \",\" \"b,a,b\" | uniq | sort }} {{ trunc 2 \"héé\" }} {{ default \"x\" \"\" }}",
            "[a b] hé x",
        ),
        (
            "{{ urlUnescape \"%zz\" }}",
            "template: :1:3: executing \"\" at <urlUnescape \"%zz\">: error calling urlUnescape: invalid URL escape \"%zz\"",
        ),
        ("{{ template \"__subject\" . }}", "[FIRING:2]  (Down <1>)"),
        ("{{ template \"__alertmanagerURL\" . }}", "http://am/#/alerts?receiver=team+a"),
        (
            "{{ match \"(\" \"\" }}",
            "template: :1:3: executing \"\" at <match \"(\" \"\">: error calling match: error parsing regexp: missing closing ): `(`",
        ),
    ]);
}

#[test]
fn rules_expand_with_queries() {
    let labels = Labels::from_pairs([("instance", "[::1]:80")]);
    let data = AlertTemplateData {
        labels: labels.clone(),
        external_labels: Labels::empty(),
        external_url: "https://p.example".to_owned(),
        value: f64::NAN,
        histogram: None,
    };
    let query = |expr: &str, at_ms: i64| match expr {
        "up" => {
            Ok(vec![QuerySample { labels: labels.clone(), value: at_ms as f64, histogram: None }])
        }
        other => Err(format!("cannot {other}")),
    };
    for (text, expected) in [
        ("plain }}", "plain }}"),
        ("{{ $value | humanize }}{{ pathPrefix }}", "NaN"),
        ("{{ query \"up\" | first | value | humanize }}", "5"),
        ("{{ stripPort $labels.instance }} {{ stripDomain \"a.b:1\" }}", "::1 a:1"),
        ("{{ title \"foo-bar BAZ\" }}", "Foo-Bar BAZ"),
        (
            "{{ query \"no\" }}",
            "error executing template t: template: t:1:115: executing \"t\" at <query \"no\">: error calling query: cannot no",
        ),
        ("{{ if gt $value 1.0 }}odd{{ end }}", "odd"),
        (
            "{{ humanizeTimestamp 1e30 }}",
            "error executing template t: template: t:1:115: executing \"t\" at <humanizeTimestamp 1e30>: error calling humanizeTimestamp: 1e+30 cannot be represented as a nanoseconds timestamp since it overflows int64",
        ),
    ] {
        let expanded = expand_alert_text("t", text, &data, 5, &query);
        assert_eq!(expanded.unwrap_or_else(|err| err), expected, "{text}");
    }
}

#[test]
fn bombs_end_with_an_error() {
    let deep_parens = format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500));
    let deep_ifs = format!("{}{}", "{{ if 1 }}".repeat(500), "{{ end }}".repeat(500));
    for (text, reason) in [
        ("{{ range 1000000000 }}{{ end }}", "exceeded maximum number of steps (1000000)"),
        ("{{ range 1000000 }}aaaaaaaaaaaaa{{ end }}", "output is longer than 1048576 bytes"),
        (
            "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ template \"x\" }}",
            "exceeded maximum template depth (400)",
        ),
        (
            "{{ $x := \"ab\" }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}",
            "print makes more than 1048576 bytes",
        ),
        (
            "{{ $x := list 1 }}{{ range 99 }}{{ $x = list $x }}{{ end }}",
            "list nests values deeper than 64",
        ),
        (
            "{{ $x := list 1 }}{{ range 60 }}{{ $x = list $x $x }}{{ end }}{{ $x }}",
            "output is longer than 1048576 bytes",
        ),
        (&*deep_parens, "nested deeper than 100 levels"),
        (&*deep_ifs, "nested deeper than 100 levels"),
    ] {
        assert!(print(text).ends_with(reason), "{text}: {}", print(text));
    }
}

#[test]
fn html_is_escaped_by_context() {
    let evil = "{{ $x := \"</script>'\\\"`${a}&/*\" }}";
    let html = |text: &str| {
        let expanded = Templates::builtin().expand_html(&format!("{evil}{text}"), &data(), NOW_MS);
        expanded.unwrap_or_else(|err| err.message)
    };
    let mut differ = Vec::new();
    for (text, expected) in [
        ("<b>{{ $x }}</b>", "<b>&lt;/script&gt;&#39;&#34;`${a}&amp;/*</b>"),
        (
            "<script>f(`{{ $x }}`)</script>",
            "<script>f(`\\u003c\\/script\\u003e\\u0027\\u0022\\u0060\\$\\{a\\}\\u0026\\/*`)</script>",
        ),
        (
            "<script>f({{ $x }}) /* {{ $x }} */</script>",
            "<script>f(\"\\u003c/script\\u003e'\\\"`${a}\\u0026/*\")   </script>",
        ),
        (
            "<script>f(`${ {{ $x }} }`)</script>",
            "html/template: expression in JS template literal: \"${ \"",
        ),
        ("<a {{ \"onclick\" }}=\"x\">", "<a ZgotmplZ=\"x\">"),
        ("<a title={{ \"\" }}>", "<a title=ZgotmplZ>"),
        (
            "<i style=\"background: url('{{ \"javascript:x\" }}')\">",
            "<i style=\"background: url('#ZgotmplZ')\">",
        ),
        ("{{ range .Alerts }}<a{{ end }}>", "html/template: \"<\" in attribute name: \"<a\""),
        (
            "<p title=\"{{ 1 }}",
            "html/template: ends in a non-text context: {stateAttr delimDoubleQuote urlPartNone jsCtxRegexp [] attrNone elementNone <nil>}",
        ),
        (
            "{{ define \"r\" }}{{ if . }}<i>{{ . }}</i>{{ template \"r\" (slice . 1) }}{{ end }}{{ end }}{{ template \"r\" \"<a\" }}",
            "<i>&lt;a</i><i>a</i>",
        ),
        (
            "{{ html \"<\" \"a\" }}{{ \"x\" | html | toUpper }}",
            "html/template::1:55: predefined escaper \"html\" disallowed in template",
        ),
        ("<!-- {{ $x }} --><{{ \"b\" }}>", "&lt;b>"),
        (
            "<a href='{{ \"//a/?b=c d\" }}' data-url={{ \"x:y\" }}>",
            "<a href='//a/?b=c%20d' data-url=#ZgotmplZ>",
        ),
    ] {
        let printed = html(text);
        if printed != expected {
            differ.push(format!("{text}\n{printed}\n{expected}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let mail = html("{{ template \"email.default.html\" . }}");
    assert!(mail.contains("<title>[FIRING:2]  (Down &lt;1&gt;)</title>"), "{mail}");
    assert!(mail.contains("<a href=\"http://am/#/alerts?receiver=team&#43;a\">"), "{mail}");
    assert!(mail.contains("job = b<br>"), "{mail}");
}
