use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;

const DATA: &str = r#"{"Id":"abc","Name":"/web","N":3,"F":1.5,"Ok":true,"Nil":null,
    "List":["a","b"],"Labels":{"z":"1","a":"2"},"Deep":{"X":{"Y":"deep"}},"Empty":[],"Objects":[{"K":1},{"K":2}]}"#;

fn run(source: &str) -> String {
    let data: Value = serde_json::from_str(DATA).unwrap();
    let method =
        |name: &str, arguments: &[Value]| (name == "Label").then(|| format!("<{arguments:?}>").into());
    let scope = Scope { type_name: "*formatter.Test", method: &method };
    match Template::parse(source).and_then(|t| t.execute(&data, &scope)) {
        Ok(text) => text,
        Err(e) => format!("error: {e}"),
    }
}

fn check(source: &str, expect: Expect) {
    expect.assert_eq(&run(source));
}

#[test]
fn fields_and_functions() {
    for (source, want) in [
        ("{{.Id}} {{ .Name }}", "abc /web"),
        ("{{.Deep.X.Y}}", "deep"),
        ("{{json .List}}", r#"["a","b"]"#),
        ("{{json .Labels}}", r#"{"z":"1","a":"2"}"#),
        ("{{.Labels}}", "map[a:2 z:1]"),
        ("{{.List}} {{.N}} {{.F}} {{.Ok}} {{.Nil}}", "[a b] 3 1.5 true <no value>"),
        ("{{index .Labels \"z\"}}{{index .Labels \"none\"}}{{index .List 1}}", "1b"),
        ("{{(index .Objects 1).K}}", "2"),
        ("{{len .List}} {{len .Name}}", "2 4"),
        ("{{join .List \", \"}}", "a, b"),
        ("{{upper .Id}} {{.Id | upper | lower}} {{title \"ab cd\"}}", "ABC abc Ab Cd"),
        ("{{if .Ok}}yes{{else}}no{{end}}{{if .Empty}}x{{else if .N}}n{{end}}", "yesn"),
        ("{{range .List}}<{{.}}>{{end}}{{range .Empty}}x{{else}}none{{end}}", "<a><b>none"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=2;z=1;"),
        ("{{range $i, $v := .List}}{{if $i}},{{end}}{{$v}}{{end}}", "a,b"),
        ("{{with .Deep.X}}{{.Y}} {{$.Id}}{{end}}", "deep abc"),
        ("{{$x := 5}}{{if .Ok}}{{$x = 6}}{{end}}{{$x}}", "6"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a  {{- .Id -}}  b", "aabcb"),
        ("{{printf \"%-5s|%5d|%q|%05d|%.1f%%\" .Id .N .Id .N .F}}", "abc  |    3|\"abc\"|00003|1.5%"),
        ("{{println .Id .N}}", "abc 3\n"),
        ("{{print .Id .N .N}}", "abc3 3"),
        ("{{eq .Id \"abc\"}} {{ne .N 3}} {{lt .N 4}} {{eq .N 1 2 3}}", "true false true true"),
        ("{{and .Ok .Id}} {{or .Empty .Id}} {{not .Ok}}", "abc abc false"),
        (
            "{{split \"a:b\" \":\"}} {{slice .Id 1 2}} {{truncate .Id 2}} {{pad .Id 1 1}}|",
            "[a b] b ab  abc |",
        ),
        ("{{.Label \"x\"}}", "<[Text(\"x\")]>"),
        ("{{`raw\\n`}}{{\"q\\n\\x41\"}}", "raw\\nq\nA"),
        ("{{range .Objects}}{{if eq .K 2}}{{break}}{{end}}{{.K}}{{end}}", "1"),
        ("{{\"}}\"}}", "}}"),
    ] {
        assert_eq!(run(source), want, "{source}");
    }
}

#[test]
fn errors_are_gos() {
    check(
        "{{.Foo}}",
        expect![
            "error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.Test"
        ],
    );
    check(
        "x\n {{.Deep.Foo}}",
        expect!["error: template: :2:3: executing \"\" at <.Deep.Foo>: map has no entry for key \"Foo\""],
    );
    check("{{.Id", expect!["error: template: :1: unclosed action"]);
    check("{{foo .Id}}", expect!["error: template: :1: function \"foo\" not defined"]);
    check("{{if .Id}}", expect!["error: template: :1: unexpected EOF"]);
    check("{{end}}", expect!["error: template: :1: unexpected {{end}}"]);
    check("{{}}", expect!["error: template: :1: missing value for command"]);
    check(
        "{{index .List 5}}",
        expect![
            "error: template: :1:2: executing \"\" at <index>: error calling index: index out of range: 5"
        ],
    );
    check(
        "{{.Id.Foo}}",
        expect![
            "error: template: :1:2: executing \"\" at <.Id.Foo>: can't evaluate field Foo in type interface {}"
        ],
    );
    check(
        "{{range .Id}}{{end}}",
        expect!["error: template: :1:8: executing \"\" at <.Id>: range can't iterate over abc"],
    );
    check("{{(.Id}}", expect!["error: template: :1: unclosed left paren"]);
    check("{{break}}", expect!["error: template: :1: {{break}} outside {{range}}"]);
}

#[test]
fn deep_nesting_is_refused() {
    let source = format!("{{{{{}.Id{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(run(&source).contains("nested too deeply"));
    assert!(run(&"{{if .Ok}}".repeat(5000)).contains("nested too deeply"));
}

proptest! {
    #[test]
    fn text_without_actions_comes_back(text in "[^{]{0,40}") {
        prop_assert_eq!(run(&text), text);
    }

    #[test]
    fn no_source_panics(source in "(\\{\\{|\\}\\}|[-. |()$\"`a-z:=,0-9]|if|range|end|else|\\PC){0,20}") {
        let _ = run(&source);
    }

    #[test]
    fn json_texts_come_back(text in "\\PC{0,20}|[\\x00-\\x20\"\\\\]{0,8}") {
        let json = Value::Text(text.clone()).to_json();
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn printf_never_panics(format in "(%[-+0# ]{0,2}[0-9*]{0,2}(\\.[0-9])?[a-zA-Z%]|\\PC){0,6}", n in any::<i64>(), f in any::<f64>()) {
        let _ = printf::printf(&format, &[Value::Int(n), Value::Float(f), "x".into(), Value::Null]);
    }
}
