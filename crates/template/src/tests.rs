//! Tests of the whole crate.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render(template: &str) -> Result<String, String> {
    render_within(template, Limits::OWN)
}

fn render_within(template: &str, limits: Limits) -> Result<String, String> {
    let value = json!({
        "ID": "abcdef", "Name": "my web", "Replicas": 3, "Ratio": 0.5, "Self": true, "None": null, "Empty": "",
        "Spec": {"Labels": {"com.example.tier": "web"}, "Ports": [{"Port": 80}, {"Port": 443}], "List": ["a", "b"]},
    });
    Template::parse(template)
        .and_then(|template| template.render(&value, Missing::Asked, limits))
        .map_err(|error| error.to_string())
}

#[test]
fn templates_that_people_write() {
    for (template, text) in [
        ("plain", "plain"),
        ("{{.ID}} {{.Name}}", "abcdef my web"),
        ("{{json .Spec.List}}", r#"["a","b"]"#),
        ("{{.Spec.List | json}}", r#"["a","b"]"#),
        ("{{upper .Name}}-{{.Name | lower}}", "MY WEB-my web"),
        ("{{len .Spec.Ports}} {{len .Name}} {{len .None}}", "2 6 0"),
        (r#"{{index .Spec.Labels "com.example.tier"}}"#, "web"),
        (r#"{{index .Spec.Labels "no"}}"#, ""),
        ("{{(index .Spec.Ports 1).Port}}", "443"),
        (r#"{{join .Spec.List ", "}}"#, "a, b"),
        (r#"{{join "-" .ID .Replicas}}"#, "abcdef-3"),
        ("{{range .Spec.Ports}}{{.Port}};{{end}}", "80;443;"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .Self}}*{{else}} {{end}}", "*"),
        ("{{if .Empty}}a{{else if eq .Replicas 3}}b{{else}}c{{end}}", "b"),
        ("{{if .UpdateStatus}}u{{else}}-{{end}}", "-"),
        ("{{if .UpdateStatus.State}}u{{else}}-{{end}}", "-"),
        ("{{with .UpdateStatus}}{{.State}}{{else}}none{{end}}", "none"),
        ("{{with .Spec}}{{len .Ports}} {{$.ID}}{{end}}", "2 abcdef"),
        ("{{with .None}}a{{else with .ID}}{{.}}{{else}}c{{end}}", "abcdef"),
        (r#"{{if ne .Name "x"}}{{if not .Empty}}y{{end}}{{end}}"#, "y"),
        (r#"{{if and .Self (or .None (gt .Replicas 2))}}y{{end}}"#, "y"),
        (r#"{{and .Self "x"}} {{or .None .Empty "d"}} {{and .None .Nope}}"#, "x d <no value>"),
        (
            r#"{{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1.5 2}} {{eq .Ratio 0.5}} {{eq 1 2 1}}"#,
            "true true true false true true",
        ),
        ("a {{- .ID -}} b", "aabcdefb"),
        ("a {{-1}} {{/* note */}}x {{- /* note */ -}} y", "a -1 xy"),
        ("{{.None}} {{.Spec.List}} {{.Spec.Labels}}", "<no value> [a b] map[com.example.tier:web]"),
        ("{{$x := .Name}}{{$x}} {{$x | len}}", "my web 6"),
        ("{{$n := 0}}{{range .Spec.Ports}}{{$n = .Port}}{{end}}{{$n}}", "443"),
        ("{{range $i, $p := .Spec.Ports}}{{if $i}},{{end}}{{$i}}={{$p.Port}}{{end}}", "0=80,1=443"),
        ("{{range $p := .Spec.Ports}}{{$p.Port}} {{end}}", "80 443 "),
        ("{{range $k, $v := .Spec.Labels}}{{$k}}={{$v}}{{end}}", "com.example.tier=web"),
        (r#"{{range .Spec.List}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}"#, "a"),
        (r#"{{range .Spec.List}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}"#, "b"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        (r#"{{define "a"}}<{{.}}>{{end}}{{template "a" .ID}}{{template "a"}}"#, "<abcdef><<no value>>"),
        (r#"{{block "b" .Spec}}{{len .List}}{{end}}"#, "2"),
        (r#"{{println .ID .Replicas}}{{print "a" 1 2 "b"}}"#, "abcdef 3\na1 2b"),
        (
            r#"{{printf "%-8s|%5d|%05d|%q|%v|%.2f|%t|%x" .ID .Replicas .Replicas .Name .Spec.List .Ratio .Self 255}}"#,
            "abcdef  |    3|00003|\"my web\"|[a b]|0.50|true|ff",
        ),
        (
            r#"{{printf "%s %d%% %v %+d %c %T %U %e %g %6.3s|" "x" 5 .None 7 65 1 9731 1500.5 0.25 "abcdef"}}"#,
            "x 5% <nil> +7 A int U+2603 1.500500e+03 0.25    abc|",
        ),
        (
            r#"{{printf "%d %s" "x"}} {{printf "x" 1}} {{printf "%"}} {{printf "%*d" 4 1}}"#,
            "%!d(string=x) %!s(MISSING) x%!(EXTRA int=1) %!(NOVERB)    1",
        ),
        (r#"{{.ID | printf "%s-%s" "x"}}"#, "x-abcdef"),
        (r#"{{slice .ID 0 3}} {{slice .ID 4}} {{slice .Spec.List 1 2}}"#, "abc ef [b]"),
        (r#"{{title .Name}} {{split .Name " "}} {{index (split .Name " ") 1}}"#, "My Web [my web] web"),
        (r#"{{truncate .ID 4}}{{pad .ID 1 2}}|{{pad .Empty 1 1}}|"#, "abcd abcdef  ||"),
        (r#"{{html "<a>"}} {{js "'x'"}} {{urlquery "a b&c"}}"#, r"&lt;a&gt; \'x\' a+b%26c"),
        (
            r#"{{"q\"\t\x41é"}} {{`r\aw`}} {{'c'}} {{0x10}} {{1_000}} {{-2.5}} {{true}}"#,
            "q\"\tAé r\\aw 99 16 1000 -2.5 true",
        ),
        (
            r#"{{eq .Spec.List .Spec.List}} {{len "äb"}} {{1e21}} {{0.00001}} {{1234567.5}} {{99999.5}}"#,
            "true 3 1e+21 1e-05 1.2345675e+06 99999.5",
        ),
        (r#"{{title "a_b c-d e'f"}} {{eq nil .ID}} {{ne .None .ID}}"#, "A_b C-D E'F false true"),
        (
            "{{ $ }}{{.}}",
            "map[Empty: ID:abcdef Name:my web None:<nil> Ratio:0.5 Replicas:3 Self:true Spec:map[Labels:map[com.example.tier:web] List:[a b] Ports:[map[Port:80] map[Port:443]]]]map[Empty: ID:abcdef Name:my web None:<nil> Ratio:0.5 Replicas:3 Self:true Spec:map[Labels:map[com.example.tier:web] List:[a b] Ports:[map[Port:80] map[Port:443]]]]",
        ),
    ] {
        assert_eq!(render(template).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn mistakes_are_explained() {
    for (template, parts) in [
        ("{{.Nmae}}", &["unknown field '.Nmae'", "ID, Name"][..]),
        ("{{.Spec.Foo}}", &["unknown field '.Spec.Foo'", "Labels, List, Ports"]),
        ("{{.Name.Foo}}", &["'.Name.Foo'", "has no fields"]),
        ("{{.Spec.Ports.Port}}", &["list", "range"]),
        ("{{.ID", &["'}}' is missing"]),
        ("{{", &["'}}' is missing"]),
        ("{{}}", &["empty"]),
        ("{{.A..B}}", &["not a field"]),
        ("{{.ID .Name}}", &["two values"]),
        ("{{.ID | .Name}}", &["after '|'"]),
        ("{{(.ID}}", &["')' is missing"]),
        ("{{.ID)}}", &["')' without"]),
        ("{{frob .ID}}", &["unknown function 'frob'", "json"]),
        ("{{if .ID}}x", &["'{{end}}' is missing"]),
        ("{{end}}", &["'{{end}}' without"]),
        ("{{else}}", &["'{{else}}' without"]),
        ("{{if .ID}}{{else}}{{else}}{{end}}", &["second '{{else}}'"]),
        ("{{break}}", &["outside of 'range'"]),
        ("{{$x}}", &["no variable '$x'"]),
        ("{{$x = 1}}", &["no variable '$x'", ":="]),
        ("{{$ := 1}}", &["cannot be set"]),
        ("{{if $a, $b := .ID}}{{end}}", &["too many variables"]),
        ("{{template \"a\"}}", &["no template 'a'"]),
        ("{{template .ID}}", &["in quotes"]),
        ("{{upper .Replicas}}", &["upper needs a text", "a number"]),
        ("{{json}}", &["json does not take no value"]),
        ("{{eq 1 \"a\"}}", &["eq cannot compare a number with a text"]),
        ("{{lt 1 \"a\"}}", &["cannot compare a number with a text"]),
        (r#"{{index .Spec.Labels "a}}"#, &["quote"]),
        (r#"{{"\q"}}"#, &[r"'\q'"]),
        ("{{'ab'}}", &["not one character"]),
        ("{{index .Spec.List 7}}", &["7", "2"]),
        ("{{slice .ID 4 2}}", &["slice 4 2", "6"]),
        ("{{range .ID}}{{end}}", &["range needs a list"]),
        ("{{12ab}}", &["'12ab'"]),
        ("{{/* x}}", &["comment"]),
        ("{{#}}", &["'#'"]),
        ("{{end .ID}}", &["nothing can follow"]),
        (r#"{{printf "%999999999d" 1}}"#, &["at most 4096"]),
        ("{{pad .ID 1 99999}}", &["99999"]),
    ] {
        let error = render(template).expect_err(template);
        for part in parts {
            assert!(error.contains(part), "{template}: {error}");
        }
    }
}

#[test]
fn in_a_spec_a_field_that_is_not_there_is_refused_also_where_it_is_asked_for() {
    let value = json!({"Service": {"Labels": {}}});
    for template in ["{{if .Service.Labels.a}}x{{end}}", "{{with .Nope}}x{{end}}", "{{range .Nope}}x{{end}}"] {
        let parsed = Template::parse(template).unwrap();
        assert!(parsed.render(&value, Missing::Refused, Limits::SPEC).is_err(), "{template}");
        assert_eq!(parsed.render(&value, Missing::Asked, Limits::SPEC).as_deref(), Ok(""), "{template}");
    }
}

#[test]
fn headers_show_titles() {
    let titles = json!({"ID": "ID", "Name": "NAME"});
    let header =
        |text: &str| Template::parse(text).and_then(|t| t.render_header(&titles)).map_err(|error| error.to_string());
    assert_eq!(header("{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{upper .Name}}").as_deref(), Ok("ID  \tNAME"));
    assert_eq!(header("{{json .ID}} {{truncate .Name 2}} {{$n := .Name}}{{$n}}").as_deref(), Ok("ID NAME NAME"));
    assert_eq!(header(r#"{{printf "%s/%s" .ID .Name}} {{range .Ports}}x{{end}}"#).as_deref(), Ok("ID/NAME "));
    assert!(header("{{.Foo}}").is_err_and(|e| e.contains("unknown field '.Foo'")));
}

#[test]
fn everything_has_a_limit() {
    let deep = format!("{{{{{}.ID{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(render(&deep).is_err_and(|e| e.contains("nested")));
    assert!(render(&"{{if .ID}}".repeat(5000)).is_err_and(|e| e.contains("nested")));
    assert!(render(&format!("{}x{}", "{{if .ID}}{{else if .ID}}".repeat(40), "{{end}}".repeat(40))).is_err());
    let elses = format!("{{{{if .None}}}}{}{{{{end}}}}", "{{else if .None}}".repeat(5000));
    assert!(render(&elses).is_err_and(|e| e.contains("nested")));
    assert!(render(r#"{{define "a"}}{{template "a"}}{{end}}{{template "a"}}"#).is_err_and(|e| e.contains("deep")));
    let spec = |text: &str| Template::parse(text).unwrap().render(&json!({}), Missing::Refused, Limits::SPEC);
    let loops = "{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}";
    assert!(spec(loops).is_err_and(|e| e.to_string().contains("steps")));
    // An empty body counts as well: no step may cost more than another one.
    assert!(spec("{{range 1000}}{{range 200}}{{end}}{{end}}").is_err_and(|e| e.to_string().contains("steps")));
    assert!(spec("{{range 99999999999}}{{end}}").is_err_and(|e| e.to_string().contains("steps")));
    let doubles = r#"{{$x := "0123456789"}}{{range 100}}{{$x = print $x $x}}{{end}}"#;
    assert!(spec(doubles).is_err_and(|e| e.to_string().contains("bytes")));
    // Long texts and lists cost more, and so does a value that is found late.
    let copies =
        r#"{{$x := "0123456789"}}{{range 12}}{{$x = print $x $x}}{{end}}{{range 99}}{{$y := upper $x}}{{end}}"#;
    assert!(spec(copies).is_err_and(|e| e.to_string().contains("steps")));
    let letters =
        r#"{{$x := "0123456789"}}{{range 12}}{{$x = print $x $x}}{{end}}{{range 9}}{{$y := split $x ""}}{{end}}"#;
    assert!(spec(letters).is_err_and(|e| e.to_string().contains("steps")));
    let list = r#"{{$x := "0123456789"}}{{range 9}}{{$x = print $x $x}}{{end}}{{$l := split $x ""}}"#;
    assert!(spec(&format!("{list}{{{{range 99}}}}{{{{range $l}}}}{{{{break}}}}{{{{end}}}}{{{{end}}}}")).is_err());
    assert!(spec(&format!("{list}{{{{len (join $l $x)}}}}")).is_err_and(|e| e.to_string().contains("bytes")));
    let padded = format!(r#"{{{{len (printf "{}"{})}}}}"#, "%4096d".repeat(20), " 1".repeat(20));
    assert!(spec(&padded).is_err_and(|e| e.to_string().contains("bytes")));
    let variables = (0..1001).map(|number| format!("{{{{$v{number} := 1}}}}")).collect::<String>();
    assert!(spec(&variables).is_err_and(|e| e.to_string().contains("more than 1000 variables")));
    let long = r#"{{range 2000}}{{print "0123456789012345678901234567890123456789"}}{{end}}"#;
    assert!(spec(long).is_err_and(|e| e.to_string().contains("bytes")));
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_refused(
        text in "\\PC{0,30}|(\\{\\{|\\}\\}|-| |\\.ID|\\.|if|else|end|range|with|define|template|break|json|index|slice|printf|:=|=|,|\\$|\\$x|\"|'|`|%|\\\\|\\(|\\)|\\||[0-9]|x|/\\*|\\*/){0,16}"
    ) {
        let _ = render_within(&text, Limits::SPEC);
    }

    #[test]
    fn text_without_braces_is_itself(text in "[a-z ,.:]{0,30}") {
        prop_assert_eq!(render(&text), Ok(text));
    }

    #[test]
    fn any_format_is_filled_in(format in "(%|[-+# 0]|[0-9]|\\.|\\*|[a-zA-Z]|\\PC){0,12}", text in "\\PC{0,6}", number in any::<i64>()) {
        let values = [json!(text), json!(number), json!(0.5), json!(null), json!([1, "a"])];
        let _ = printf::printf(&format, &values.iter().map(value::Value::from).collect::<Vec<_>>(), 1 << 20);
    }
}
