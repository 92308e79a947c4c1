//! Comma-separated fields with quotes, as `--mount`, `--publish` and others take them.

/// Splits `a=1,"b=x,y",c`. Within quotes a comma is text and `""` is a quote.
///
/// # Errors
/// A quote that is not closed, or one in the middle of a field.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut in_quotes = false;
    let mut closed = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if in_quotes && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if in_quotes => (in_quotes, closed) = (false, true),
            '"' if field.is_empty() && !closed => in_quotes = true,
            ',' if !in_quotes => {
                fields.push(String::new());
                closed = false;
            }
            '"' => return Err(format!("a quote stands in the middle of a field in '{text}'")),
            _ if closed => return Err(format!("text follows a closing quote in '{text}'")),
            c => field.push(c),
        }
    }
    if in_quotes { Err(format!("a quote is not closed in '{text}'")) } else { Ok(fields) }
}

/// Splits into keys and values; a field without `=` has none. Keys are in lower case.
///
/// # Errors
/// As [`split`].
pub(super) fn pairs(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.trim().to_owned())),
        None => (field.trim().to_ascii_lowercase(), None),
    };
    Ok(split(text)?.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(split(r#"a=1,"b=x,""y""",,c"#).unwrap(), ["a=1", "b=x,\"y\"", "", "c"]);
        for text in [r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(split(text).is_err_and(|e| e.contains(text)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(fields in proptest::collection::vec("\\PC{0,8}|[,\"]{0,4}", 1..4)) {
            let line = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(split(&line), Ok(fields));
        }

        #[test]
        fn any_text_is_split_or_refused(text in "\\PC{0,20}|[a,=\"]{0,12}") {
            let _ = pairs(&text);
        }
    }
}
