//! The part of Go's template language that `--format` needs.
//!
//! Fields (`{{.Spec.Name}}`), texts, numbers, pipes, parentheses, `if`/`else`/`end`, `range`, and the functions
//! `json`, `upper`, `lower`, `len`, `index`, `join`, `eq`, `ne`, `not`. Not here: variables, `with`, `define`,
//! method calls. A field that does not exist is an error that lists those that do.

mod eval;
mod parse;

use serde_json::Value;
use thiserror::Error;

use parse::Node;

/// A template that cannot be read, or does not fit the value that it is applied to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("--format: {0}")]
pub(crate) struct TemplateError(pub(crate) String);

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Node>);

impl Template {
    /// Reads a template. `\t` and `\n` written as two characters mean tab and newline, since shells pass them so.
    ///
    /// # Errors
    /// Says where the text stops being a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(&text.replace("\\t", "\t").replace("\\n", "\n")).map(Self)
    }

    /// Applies the template.
    ///
    /// # Errors
    /// A field that does not exist, or a function that does not fit its arguments.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        eval::render(&self.0, value, &mut text)?;
        Ok(text)
    }

    /// Applies the template to the titles of columns: each field gives its title, functions do nothing.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_header(&self, titles: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        eval::render_header(&self.0, titles, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let value = json!({
            "ID": "abc", "Name": "Web", "Replicas": 3, "Self": true, "None": null, "Empty": "",
            "Spec": {"Labels": {"com.example.tier": "web"}, "Ports": [{"Port": 80}, {"Port": 443}], "List": ["a", "b"]},
        });
        Template::parse(template).and_then(|t| t.render(&value)).map_err(|e| e.to_string())
    }

    #[test]
    fn templates_that_people_write() {
        for (template, text) in [
            ("plain", "plain"),
            ("{{.ID}} {{.Name}}", "abc Web"),
            (r"{{.ID}}\t{{ .Replicas }}\n", "abc\t3\n"),
            ("{{json .Spec.List}}", r#"["a","b"]"#),
            ("{{.Spec.List | json}}", r#"["a","b"]"#),
            ("{{upper .Name}}-{{.Name | lower}}", "WEB-web"),
            ("{{len .Spec.Ports}}", "2"),
            (r#"{{index .Spec.Labels "com.example.tier"}}"#, "web"),
            (r#"{{index .Spec.Labels "no"}}"#, ""),
            ("{{(index .Spec.Ports 1).Port}}", "443"),
            (r#"{{join .Spec.List ", "}}"#, "a, b"),
            ("{{range .Spec.Ports}}{{.Port}};{{end}}", "80;443;"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{if .Self}}*{{else}} {{end}}", "*"),
            ("{{if .Empty}}a{{else if eq .Replicas 3}}b{{else}}c{{end}}", "b"),
            ("{{if .UpdateStatus}}u{{else}}-{{end}}", "-"),
            (r#"{{if ne .Name "x"}}{{if not .Empty}}y{{end}}{{end}}"#, "y"),
            ("a {{- .ID -}} b", "aabcb"),
            ("{{/* note */}}x", "x"),
            ("{{.None}}", "<no value>"),
            ("{{.Spec.List}} {{.Spec.Labels}}", "[a b] map[com.example.tier:web]"),
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
            ("{{}}", &["empty"]),
            ("{{frob .ID}}", &["unknown function 'frob'", "json"]),
            ("{{if .ID}}x", &["'{{end}}' is missing"]),
            ("{{end}}", &["'{{end}}' without"]),
            ("{{with .Spec}}x{{end}}", &["'with' is not supported"]),
            ("{{upper .Replicas}}", &["upper", "text"]),
            ("{{json}}", &["json"]),
            (r#"{{index .Spec.Labels "a}}"#, &["quote"]),
            ("{{index .Spec.List 7}}", &["7", "2"]),
        ] {
            let error = render(template).expect_err(template);
            for part in parts {
                assert!(error.contains(part), "{template}: {error}");
            }
        }
    }

    #[test]
    fn headers_show_titles() {
        let titles = json!({"ID": "ID", "Name": "NAME"});
        let header = |t: &str| Template::parse(t).and_then(|t| t.render_header(&titles)).map_err(|e| e.to_string());
        assert_eq!(header(r"{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{upper .Name}}").as_deref(), Ok("ID  \tNAME"));
        assert!(header("{{.Foo}}").is_err_and(|e| e.contains("unknown field '.Foo'")));
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = format!("{{{{{}.ID{}}}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(render(&deep).is_err_and(|e| e.contains("nested")));
        assert!(render(&"{{if .ID}}".repeat(5000)).is_err_and(|e| e.contains("nested")));
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_refused(
            text in "\\PC{0,30}|(\\{\\{|\\}\\}|-| |\\.ID|\\.|if|else|end|range|json|index|\"|\\(|\\)|\\||[0-9]|x){0,12}"
        ) {
            let _ = render(&text);
        }

        #[test]
        fn text_without_braces_is_itself(text in "[a-z ,.:]{0,30}") {
            prop_assert_eq!(render(&text), Ok(text));
        }
    }
}
