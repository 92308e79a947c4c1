//! JSON text, indented without being read: fields keep the order and the numbers that the server gave them.

/// Indents JSON by four spaces a level, as `docker inspect` does. The text must be valid JSON.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                in_text = true;
                out.push(c);
            }
            c if c.is_whitespace() => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn order_and_numbers_stay() {
        let text = "{\"b\":1795347799919590058,\"a\":[1,{\"x\":\"a: {,\\\"} b\"}],\n \"e\":{ },\"f\":[]}\n";
        assert_eq!(
            indent(text),
            "{\n    \"b\": 1795347799919590058,\n    \"a\": [\n        1,\n        {\n            \
             \"x\": \"a: {,\\\"} b\"\n        }\n    ],\n    \"e\": {},\n    \"f\": []\n}"
        );
    }

    proptest! {
        #[test]
        fn what_is_indented_means_the_same(texts in proptest::collection::vec("\\PC{0,8}|[\\\\\"{}:,]{0,6}", 0..4)) {
            let value = serde_json::json!({"list": texts, "first": {"deep": [[], {}, texts.first()]}});
            for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(&serde_json::from_str::<Value>(&indent(&json)).unwrap(), &value);
            }
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,40}|[\\[\\]{}\",: ]{0,20}") {
            let _ = indent(&text);
        }
    }
}
