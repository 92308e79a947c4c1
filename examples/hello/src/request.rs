//! What a client asks for.

/// The requests that this service knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `GET /`.
    Greet,
    /// `GET /health`.
    Health,
    /// `POST /healthy` or `POST /unhealthy`.
    TurnHealth(bool),
    /// `POST /crash`.
    Crash,
    /// `POST /hang`.
    Hang,
    /// A path that is known, with another method.
    WrongMethod,
    /// Another path.
    Unknown,
    /// Not HTTP.
    Malformed,
}

impl Request {
    /// Reads the head of a request; takes any bytes.
    pub(crate) fn parse(head: &[u8]) -> Self {
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let Ok(line) = str::from_utf8(line) else { return Self::Malformed };
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Self::Malformed;
        };
        if !version.starts_with("HTTP/1.") {
            return Self::Malformed;
        }
        let path = target.split('?').next().unwrap_or_default();
        let (expected, request) = match path {
            "/" => ("GET", Self::Greet),
            "/health" => ("GET", Self::Health),
            "/healthy" => ("POST", Self::TurnHealth(true)),
            "/unhealthy" => ("POST", Self::TurnHealth(false)),
            "/crash" => ("POST", Self::Crash),
            "/hang" => ("POST", Self::Hang),
            _ => return Self::Unknown,
        };
        if method == expected { request } else { Self::WrongMethod }
    }
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn knows_its_paths_and_methods() {
        for (line, request) in [
            ("GET / HTTP/1.1", Request::Greet),
            ("GET /?a=b HTTP/1.0", Request::Greet),
            ("GET /health HTTP/1.1", Request::Health),
            ("POST /unhealthy HTTP/1.1", Request::TurnHealth(false)),
            ("POST /healthy HTTP/1.1", Request::TurnHealth(true)),
            ("POST /crash HTTP/1.1", Request::Crash),
            ("POST /hang HTTP/1.1", Request::Hang),
            ("GET /crash HTTP/1.1", Request::WrongMethod),
            ("GET /nowhere HTTP/1.1", Request::Unknown),
            ("GET / HTTP/2", Request::Malformed),
            ("GET /", Request::Malformed),
            ("", Request::Malformed),
        ] {
            assert_eq!(Request::parse(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()), request, "{line}");
        }
    }

    #[test]
    fn takes_any_bytes() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let _ = Request::parse(&[first, second]);
                assert_eq!(Request::parse(&[b'G', first, second, b'\n']), Request::Malformed);
            }
        }
    }
}
