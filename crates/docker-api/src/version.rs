//! The version in the path, `/v1.50/…`.

use std::{fmt, str::FromStr};

use crate::ApiError;

/// The header that says which revision of the state an answer holds: of a backup, and of a stale read.
pub const REVISION_HEADER: &str = "x-swarmd-revision";
/// The header of a stale read that says how many milliseconds ago the manager last knew of a leader; absent if never.
pub const LEADER_CONTACT_HEADER: &str = "x-swarmd-leader-contact-ms";

/// The header of every answer of a manager that must not be counted on: why, for people.
pub const WARNING_HEADER: &str = "x-swarmd-warning";

/// Newest version of the Docker Engine API that is spoken.
pub const API_VERSION_MAX: ApiVersion = ApiVersion { major: 1, minor: 50 };
/// Oldest version that is spoken; newer engines have given up older ones, too.
pub const API_VERSION_MIN: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// A version of the Docker Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// 1, so far.
    pub major: u16,
    /// Counts up.
    pub minor: u16,
}

impl ApiVersion {
    /// Checks that a client's version is spoken here.
    ///
    /// # Errors
    /// 400 in Docker's words.
    pub fn check(self) -> Result<(), ApiError> {
        if self > API_VERSION_MAX {
            return Err(ApiError::bad_request(format!(
                "client version {self} is too new. Maximum supported API version is {API_VERSION_MAX}"
            )));
        }
        if self < API_VERSION_MIN {
            return Err(ApiError::bad_request(format!(
                "client version {self} is too old. Minimum supported API version is {API_VERSION_MIN}, please \
                 upgrade your client to a newer version"
            )));
        }
        Ok(())
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ApiError;
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| ApiError::bad_request(format!("invalid API version '{text}', expected one like 1.50")))
    }
}

/// Splits `/v1.50/services` into the version and `/services`. A path without a version is returned as it is.
///
/// # Errors
/// 400 when the version is malformed or not spoken here.
pub fn split_version(path: &str) -> Result<(Option<ApiVersion>, &str), ApiError> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok((None, path)) };
    let (text, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok((None, path));
    }
    let version: ApiVersion = text.parse()?;
    version.check()?;
    Ok((Some(version), if rest.is_empty() { "/" } else { rest }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_optional_and_bounded() {
        let at = |minor| Some(ApiVersion { major: 1, minor });
        assert_eq!(split_version("/v1.50/services"), Ok((at(50), "/services")));
        assert_eq!(split_version("/v1.24/_ping"), Ok((at(24), "/_ping")));
        assert_eq!(split_version("/v1.30"), Ok((at(30), "/")));
        for plain in ["/services", "/version", "/volumes/x", "/", "", "/v/x"] {
            assert_eq!(split_version(plain), Ok((None, plain)));
        }
        let message = |path| split_version(path).expect_err("refused").message;
        assert_eq!(message("/v1.99/x"), "client version 1.99 is too new. Maximum supported API version is 1.50");
        assert_eq!(
            message("/v1.9/x"),
            "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a \
             newer version"
        );
        assert!(message("/v1.2.3/x").contains("'1.2.3'"));
        assert!(message("/v1.99999999/x").contains("'1.99999999'"));
    }

    proptest! {
        #[test]
        fn any_path_is_split_or_refused(path in "/v?[0-9.]{0,12}\\PC{0,12}") {
            if let Ok((version, rest)) = split_version(&path) {
                prop_assert!(version.is_none() || rest.starts_with('/'));
                prop_assert!(path.ends_with(rest) || rest == "/");
            }
        }
    }
}
