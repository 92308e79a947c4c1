//! Join tokens, `SWMTKN-1-<digest>-<secret>` (swarm-behaviour §9.1).
//!
//! The digest is that of the root CA's PEM text, so that a node that joins knows whom it talks to before it trusts
//! anybody; the secret lets it in, and says as what.

use std::fmt;

use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use swarm_model::Redacted;
use thiserror::Error;

use crate::ca::check_root;

/// Characters of the digest: 256 bits in base36.
const DIGEST_LEN: usize = 50;
/// Characters of the secret: 128 bits in base36.
const SECRET_LEN: usize = 25;
/// What every token begins with.
const PREFIX: &str = "SWMTKN-1-";

/// What is wrong with a token. No message holds any part of a secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not the form of a token.
    #[error(
        "this is not a join token: one looks like SWMTKN-1-<50 characters>-<25 characters>; \
         print it with `swarm join-token worker` on a manager"
    )]
    NotAToken,
    /// A version that this program does not know.
    #[error("join tokens of version {0:?} are not supported, only SWMTKN-1")]
    Version(String),
    /// Cut off, or with something added.
    #[error("the join token's {part} has {found} characters instead of {want}: was it copied whole?")]
    Length {
        /// Which part.
        part: &'static str,
        /// How long it is.
        found: usize,
        /// How long it should be.
        want: usize,
    },
    /// A character that no token has.
    #[error("the join token's {0} has a character other than 0-9 and a-z")]
    Character(&'static str),
    /// The token was made by a cluster with another root CA.
    #[error(
        "the join token is of another cluster: it does not fit the root CA that the manager at this address has; \
         compare address and token with `swarm join-token` on a manager of the cluster that you mean"
    )]
    OtherCluster,
    /// What was fetched as a root CA is none.
    #[error("{0}")]
    Root(String),
    /// The system has no randomness.
    #[error("the system has no randomness for a new token")]
    NoRandomness,
}

/// A join token. Its `Debug` form shows the digest only.
#[derive(Clone)]
pub struct JoinToken {
    digest: String,
    secret: Redacted,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-<hidden>", self.digest)
    }
}

impl JoinToken {
    /// Reads a token. Space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`]: not a token, of another version, too short or too long, or with strange characters.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix("SWMTKN-") else { return Err(TokenError::NotAToken) };
        let mut parts = rest.split('-');
        match parts.next() {
            Some("1") => {}
            Some(version) if !version.is_empty() && version.len() <= 3 => {
                return Err(TokenError::Version(version.to_owned()));
            }
            _ => return Err(TokenError::NotAToken),
        }
        let digest = part("digest", parts.next(), DIGEST_LEN)?;
        let secret = part("secret", parts.next(), SECRET_LEN)?;
        if parts.next().is_some() {
            return Err(TokenError::NotAToken);
        }
        Ok(Self { digest: digest.to_owned(), secret: Redacted::new(secret) })
    }

    /// The token in full.
    pub fn format(&self) -> Redacted {
        Redacted::new(format!("{PREFIX}{}-{}", self.digest, self.secret.expose()))
    }

    /// A new token for the cluster with this root CA.
    ///
    /// # Errors
    /// [`TokenError::NoRandomness`].
    pub fn generate(root_pem: &str) -> Result<Self, TokenError> {
        Ok(Self { digest: root_digest(root_pem), secret: new_secret()? })
    }

    /// A token of the same cluster with a new secret.
    ///
    /// # Errors
    /// [`TokenError::NoRandomness`].
    pub fn rotate(&self) -> Result<Self, TokenError> {
        Ok(Self { digest: self.digest.clone(), secret: new_secret()? })
    }

    /// Whether `text` is this token; takes the same time wherever they differ.
    pub fn matches(&self, text: &str) -> bool {
        let Ok(bytes) = random::<32>() else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let own = hmac::sign(&key, self.format().expose().as_bytes());
        hmac::verify(&key, text.trim().as_bytes(), own.as_ref()).is_ok()
    }

    /// Whether the root CA that was fetched is that of the token's cluster.
    ///
    /// # Errors
    /// [`TokenError::OtherCluster`], or [`TokenError::Root`] when it is no root CA at all.
    pub fn check_root(&self, root_pem: &str) -> Result<(), TokenError> {
        check_root(root_pem).map_err(|e| TokenError::Root(e.to_string()))?;
        if root_digest(root_pem) == self.digest { Ok(()) } else { Err(TokenError::OtherCluster) }
    }
}

fn part<'a>(part: &'static str, text: Option<&'a str>, want: usize) -> Result<&'a str, TokenError> {
    let text = text.unwrap_or_default();
    if let Some(c) = text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='z')) {
        // Two tokens in one, or a sentence after it: not a matter of one wrong character.
        return Err(if c.is_whitespace() { TokenError::NotAToken } else { TokenError::Character(part) });
    }
    if text.len() == want { Ok(text) } else { Err(TokenError::Length { part, found: text.len(), want }) }
}

/// SHA-256 of the PEM text in base36.
pub fn root_digest(root_pem: &str) -> String {
    base36(digest(&SHA256, root_pem.as_bytes()).as_ref(), DIGEST_LEN)
}

fn new_secret() -> Result<Redacted, TokenError> {
    Ok(Redacted::new(base36(&random::<16>()?, SECRET_LEN)))
}

fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes)
}

/// A big-endian number in base36, padded with zeros to `len` characters.
fn base36(number: &[u8], len: usize) -> String {
    let mut number = number.to_vec();
    let mut text: Vec<u8> = (0..len)
        .map(|_| {
            // Long division by 36, byte by byte; what remains is the next digit from the right.
            let remainder = number.iter_mut().fold(0_u32, |remainder, byte| {
                let value = (remainder << 8) | u32::from(*byte);
                *byte = (value / 36) as u8;
                value % 36
            });
            b"0123456789abcdefghijklmnopqrstuvwxyz"[remainder as usize]
        })
        .collect();
    text.reverse();
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Ca;

    #[test]
    fn base36_counts() {
        assert_eq!(base36(&[0], 3), "000");
        assert_eq!(base36(&[35], 3), "00z");
        assert_eq!(base36(&[1, 0], 3), "074");
        // 2^256 - 1 and 2^128 - 1 fit the widths.
        assert_eq!(base36(&[0xff; 32], 50), "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof");
        assert_eq!(base36(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
    }

    #[test]
    fn the_digest_is_that_of_the_pem_text() {
        assert_eq!(root_digest("abc"), "4nb7oofka9ml8nasnokxxc1unhmtpr1wxsuwhpd9km3vt5as31");
        assert_ne!(root_digest("abc"), root_digest("abc\n"));
    }

    #[test]
    fn a_token_fits_its_own_cluster_only() {
        let (ours, other) = (Ca::create().unwrap(), Ca::create().unwrap());
        let token = JoinToken::generate(ours.cert_pem()).unwrap();
        assert_eq!(token.check_root(ours.cert_pem()), Ok(()));
        assert_eq!(token.check_root(other.cert_pem()), Err(TokenError::OtherCluster));
        assert!(matches!(token.check_root("nonsense"), Err(TokenError::Root(_))));
    }

    #[test]
    fn rotation_changes_the_secret_alone() {
        let token = JoinToken::generate("root").unwrap();
        let rotated = token.rotate().unwrap();
        assert_eq!(token.digest, rotated.digest);
        assert!(token.matches(token.format().expose()));
        assert!(!token.matches(rotated.format().expose()));
        assert!(!token.matches(""));
    }

    #[test]
    fn errors_say_what_is_wrong_and_no_secret() {
        let token = JoinToken::generate("root").unwrap();
        let whole = token.format();
        let whole = whole.expose();
        assert_eq!(JoinToken::parse("").unwrap_err(), TokenError::NotAToken);
        assert_eq!(JoinToken::parse("swmtkn-1-a-b").unwrap_err(), TokenError::NotAToken);
        assert_eq!(JoinToken::parse(&format!("{whole} {whole}")).unwrap_err(), TokenError::NotAToken);
        assert_eq!(JoinToken::parse(&format!("{whole}-x")).unwrap_err(), TokenError::NotAToken);
        assert_eq!(JoinToken::parse("SWMTKN-2-1-a-b").unwrap_err(), TokenError::Version("2".to_owned()));
        let cut = JoinToken::parse(&whole[..whole.len() - 3]).unwrap_err();
        assert_eq!(cut, TokenError::Length { part: "secret", found: 22, want: 25 });
        assert_eq!(JoinToken::parse(&whole.to_uppercase()).unwrap_err(), TokenError::Character("digest"));
        assert!(!format!("{token:?}").contains(token.secret.expose()));
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_parsed(root: String) {
            let token = JoinToken::generate(&root).unwrap();
            let text = token.format();
            prop_assert_eq!(text.expose().len(), PREFIX.len() + DIGEST_LEN + 1 + SECRET_LEN);
            let again = JoinToken::parse(&format!(" {}\n", text.expose())).unwrap();
            prop_assert!(again.matches(text.expose()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(SWMTKN-)?(1-)?\\PC{0,60}(-\\PC{0,30})?") {
            if let Ok(token) = JoinToken::parse(&text) {
                let formatted = token.format();
                prop_assert_eq!(formatted.expose(), text.trim());
            }
        }

        #[test]
        fn base36_of_128_bits_is_that_of_ids(n: u128) {
            prop_assert_eq!(u128::from_str_radix(&base36(&n.to_be_bytes(), SECRET_LEN), 36).unwrap(), n);
        }
    }
}
