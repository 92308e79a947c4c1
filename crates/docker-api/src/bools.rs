//! Docker's two ways to read a boolean from a query (docker-api §0.17).

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

    proptest! {
        #[test]
        fn what_is_strictly_true_is_truthy(text in "\\PC{0,8}") {
            if let Ok(value) = parse_bool("x", Some(&text)) {
                prop_assert_eq!(is_truthy(Some(&text)), value || matches!(text.as_str(), "f" | "F"));
            }
        }
    }
}
