//! Lists as tables, templates, JSON or ids: what `--format` and `--quiet` choose.

use serde_json::{Map, Value};

use crate::{
    table,
    template::{Template, TemplateError},
    units::one_line,
};

/// How a list is shown when nothing is said.
pub(crate) struct Columns {
    /// Template of a line, cells separated by `\t`.
    pub(crate) default: &'static str,
    /// Fields with the titles of their columns. Templates can use exactly these.
    pub(crate) titles: &'static [(&'static str, &'static str)],
}

/// What the user chose.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ListFormat {
    /// Show only what matches, for example name=web or label=tier=web; can be repeated
    #[arg(short = 'f', long = "filter", value_name = "KEY=VALUE", value_parser = crate::filters::parse_filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// How to print: 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.ID}} {{.Name}}'
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// One line of a list: its fields by name.
pub(crate) type Row = Map<String, Value>;

/// A row from fields and texts, each on one line.
pub(crate) fn row<const N: usize>(fields: [(&str, String); N]) -> Row {
    fields.into_iter().map(|(name, text)| (name.to_owned(), Value::String(one_line(&text)))).collect()
}

/// Shows a list.
///
/// # Errors
/// A template that cannot be read or names an unknown field, even when there are no rows.
pub(crate) fn render(
    columns: &Columns,
    rows: Vec<Row>,
    format: Option<&str>,
    quiet: bool,
) -> Result<String, TemplateError> {
    let format = format.map(str::trim).filter(|f| !f.is_empty()).unwrap_or("table");
    let (template, is_table) = match (format, quiet) {
        ("table", true) => ("{{.ID}}", false),
        ("table", false) => (columns.default, true),
        ("json", _) => ("{{json .}}", false),
        (text, _) => match text.strip_prefix("table ") {
            Some(template) => (template.trim_start(), true),
            None => (text, false),
        },
    };
    let template = Template::parse(template)?;
    let titles = columns.titles.iter().map(|(field, title)| ((*field).to_owned(), Value::from(*title))).collect();
    let header = template.render_header(&Value::Object(titles))?;
    let mut lines = if is_table { vec![header] } else { Vec::new() };
    for row in rows {
        lines.push(template.render(&Value::Object(row))?);
    }
    if is_table {
        return Ok(table::align(&lines));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns {
        default: "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Name}}",
        titles: &[("ID", "ID"), ("Name", "NAME"), ("Mode", "MODE")],
    };

    fn show(format: Option<&str>, quiet: bool) -> Result<String, String> {
        let mut first = row([("ID", "a1".into()), ("Name", "web\n2".into()), ("Mode", "global".into())]);
        first.insert("Self".into(), true.into());
        let second = row([("ID", "b2".into()), ("Name", "api".into()), ("Mode", "x".into())]);
        render(&COLUMNS, vec![first, second], format, quiet).map_err(|e| e.to_string())
    }

    #[test]
    fn the_ways_to_show_a_list() {
        let table = "ID        NAME\na1 *      web 2\nb2        api\n";
        assert_eq!(show(None, false).as_deref(), Ok(table));
        assert_eq!(show(Some("table"), false).as_deref(), Ok(table));
        assert_eq!(show(None, true).as_deref(), Ok("a1\nb2\n"));
        assert_eq!(show(Some("{{.Name}}"), true).as_deref(), Ok("web 2\napi\n"));
        assert_eq!(
            show(Some(r"table {{.Name}}\t{{.Mode}}"), false).as_deref(),
            Ok("NAME      MODE\nweb 2     global\napi       x\n")
        );
        assert_eq!(
            show(Some("json"), false).as_deref().map(|t| t.lines().last()),
            Ok(Some(r#"{"ID":"b2","Mode":"x","Name":"api"}"#))
        );
    }

    #[test]
    fn an_unknown_field_is_found_without_rows() {
        let error = render(&COLUMNS, Vec::new(), Some("{{.Nope}}"), false).expect_err("unknown");
        assert!(error.to_string().contains("ID, Mode, Name"), "{error}");
    }
}
