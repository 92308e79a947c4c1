//! Paths of requests, read as Docker's own server reads them.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::ApiError;

/// What stands escaped in a path; all that is not ASCII does as well.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Reads the path of a request: decodes escapes, an escaped `/` included, and resolves empty pieces, `.` and `..`.
/// Docker's server does the same before it looks for a route, so that what this returns is what it would answer. The
/// result begins with `/` and ends with one only if it is nothing else.
///
/// # Errors
/// 400 when an escape is not two hexadecimal digits, or the path is not UTF-8.
pub fn decode_path(raw: &str) -> Result<String, ApiError> {
    let refuse = |problem: &str| Err(ApiError::bad_request(format!("invalid path {raw}: {problem}")));
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if !raw.split('%').skip(1).all(is_escape) {
        return refuse("after a % come two hexadecimal digits");
    }
    let Ok(decoded) = percent_decode_str(raw).decode_utf8() else {
        return refuse("it is not UTF-8");
    };
    let mut pieces = Vec::new();
    for piece in decoded.split('/') {
        match piece {
            "" | "." => {}
            ".." => drop(pieces.pop()),
            piece => pieces.push(piece),
        }
    }
    Ok(format!("/{}", pieces.join("/")))
}

/// Writes a path that [`decode_path`] has read for a request: who decodes it reads the same.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_route_has_one_spelling() {
        for (raw, expected) in [
            ("/", "/"),
            ("", "/"),
            ("//", "/"),
            ("a", "/a"),
            ("/a/b", "/a/b"),
            ("/v1.50//nodes/", "/v1.50/nodes"),
            ("/v1.41/%73warm/init", "/v1.41/swarm/init"),
            ("/swarm%2Finit", "/swarm/init"),
            ("/swarm%2finit", "/swarm/init"),
            ("/%76%31.41/swarm/init", "/v1.41/swarm/init"),
            ("/./swarm/%2E/init", "/swarm/init"),
            ("/containers/../swarm/x/%2e%2E/init", "/swarm/init"),
            ("/../../swarm", "/swarm"),
            // Docker's routes have small letters, and an escape is decoded once.
            ("/Swarm/init", "/Swarm/init"),
            ("/%2573warm", "/%73warm"),
            ("/images/a%20b%3Fc", "/images/a b?c"),
            ("/a;b+c", "/a;b+c"),
        ] {
            assert_eq!(decode_path(raw).as_deref(), Ok(expected), "{raw}");
        }
        for raw in ["/%", "/%7", "/%zz", "/a%2", "/%+1", "/%C3%28"] {
            let error = decode_path(raw).expect_err(raw);
            assert!(error.status == 400 && error.message.contains(raw), "{error}");
        }
        assert_eq!(encode_path("/a b?c#d%e/ü\n"), "/a%20b%3Fc%23d%25e/%C3%BC%0A");
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(raw in "\\PC{0,40}|[/.%2eEfF]{0,24}") {
            if let Ok(path) = decode_path(&raw) {
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                prop_assert!(path == "/" || path.split('/').skip(1).all(|p| !matches!(p, "" | "." | "..")));
                let written = encode_path(&path);
                prop_assert!(written.is_ascii());
                prop_assert_eq!(decode_path(&written), Ok(path));
            }
        }
    }
}
