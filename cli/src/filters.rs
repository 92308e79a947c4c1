//! `--filter KEY=VALUE`.

use std::collections::BTreeMap;

/// Reads one filter.
///
/// # Errors
/// Without a key or an equals sign.
pub(crate) fn parse_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned())),
        _ => Err(format!("'{text}' is not a filter; write KEY=VALUE, for example name=web")),
    }
}

/// The `filters` parameter: `{"key":{"value":true}}`; none without filters.
pub(crate) fn to_json(filters: &[(String, String)]) -> Option<String> {
    let mut keys: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for (key, value) in filters {
        keys.entry(key).or_default().insert(value, true);
    }
    (!keys.is_empty()).then(|| serde_json::to_string(&keys).expect("maps of texts are JSON"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_sent_as_dockers_clients_do() {
        let filters: Vec<_> = ["name=web", "label=a=b", "Name = api"].map(|t| parse_filter(t).unwrap()).into();
        assert_eq!(to_json(&filters).as_deref(), Some(r#"{"label":{"a=b":true},"name":{"api":true,"web":true}}"#));
        assert_eq!(to_json(&[]), None);
        assert!(parse_filter("web").is_err_and(|e| e.contains("'web'")));
        assert!(parse_filter("=web").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_refused(text in "\\PC{0,20}") {
            if let Ok(filter) = parse_filter(&text) {
                let json = to_json(&[filter]).unwrap();
                prop_assert!(swarm_docker_api::Filters::parse(Some(&json), &[]).is_err());
            }
        }
    }
}
