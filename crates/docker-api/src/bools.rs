//! Docker's two ways to read a boolean from a query (docker-api §0.17), and a third for what cannot be undone.

use crate::ApiError;

/// Reads `stdout`, `stderr`, `follow`, `timestamps`, `details`, `force` and the like: everything is true but nothing,
/// `0`, `no`, `false` and `none`.
pub fn is_truthy(value: Option<&str>) -> bool {
    !matches!(value.unwrap_or_default().trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// Reads `status`, `insertDefaults`, `rotateWorkerToken` and the like, strictly. Absent and empty are false.
///
/// # Errors
/// 400 for anything that Go does not take for a boolean.
pub fn parse_bool(name: &str, value: Option<&str>) -> Result<bool, ApiError> {
    match value.unwrap_or_default() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => Err(ApiError::bad_request(format!("invalid value for {name}: '{other}' is neither true nor false"))),
    }
}

/// Reads `force` of a call that cannot be undone, such as `swarm leave`: only what Docker's clients send counts, so that a
/// slip of the pen destroys nothing. Absent is false.
///
/// # Errors
/// 400 for everything else.
pub fn parse_force(value: Option<&str>) -> Result<bool, ApiError> {
    match value {
        Some("1" | "true" | "True") => Ok(true),
        None | Some("0" | "false" | "False") => Ok(false),
        Some(other) => Err(ApiError::bad_request(format!(
            "invalid value for force: '{other}': this cannot be undone, so that it takes 1 or true; leave it out for no"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_and_python_spellings() {
        for (text, truthy, parsed) in [
            ("1", true, Some(true)),
            ("True", true, Some(true)),
            ("False", false, Some(false)),
            (" FALSE ", false, None),
            ("none", false, None),
            ("yes", true, None),
            ("", false, Some(false)),
        ] {
            assert_eq!(is_truthy(Some(text)), truthy, "{text}");
            assert_eq!(parse_bool("status", Some(text)).ok(), parsed, "{text}");
        }
        assert!(!is_truthy(None));
        let error = parse_bool("status", Some("maybe")).expect_err("no boolean");
        assert_eq!((error.status, error.message.contains("'maybe'")), (400, true));
    }

    #[test]
    fn what_cannot_be_undone_takes_what_clients_send() {
        for (value, expected) in [
            (None, Some(false)),
            (Some("1"), Some(true)),
            (Some("true"), Some(true)),
            (Some("True"), Some(true)),
            (Some("0"), Some(false)),
            (Some("false"), Some(false)),
            (Some("False"), Some(false)),
        ] {
            assert_eq!(parse_force(value).ok(), expected, "{value:?}");
        }
        for value in ["zzz", "", "yes", "TRUE", "t", " 1", "2", "no", "none"] {
            let error = parse_force(Some(value)).expect_err(value);
            assert!(error.status == 400 && error.message.contains(&format!("'{value}'")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_strictly_true_is_truthy(text in "\\PC{0,8}") {
            if let Ok(value) = parse_bool("x", Some(&text)) {
                prop_assert_eq!(is_truthy(Some(&text)), value || matches!(text.as_str(), "f" | "F"));
            }
        }
    }
}
