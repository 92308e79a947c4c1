//! Registries, seen from a client: stored credentials, and the digest behind a tag.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde::Deserialize;
use serde_json::Value;
use swarm_model::{Platform, Redacted};

use crate::{
    client::{Client, segment},
    spec_flags::{Draft, registry_of},
    units::one_line,
};

/// How long a registry may take. The service is created anyway: without an answer each node uses what it finds.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// The value of `X-Registry-Auth` for an image, from the file that `docker login` writes, or from the helper that the
/// file names. A helper may ask whoever runs it for a passphrase, so that it has all the time that it wants.
///
/// # Errors
/// There is no such file, or it has no credentials for the image's registry.
pub(crate) fn stored_credentials(image: &str, env: impl Fn(&str) -> Option<String>) -> anyhow::Result<Redacted> {
    let folder = env("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(PathBuf::from(env("HOME")?).join(".docker")));
    let path = folder.context("--with-registry-auth: neither DOCKER_CONFIG nor HOME is set")?.join("config.json");
    let config = std::fs::read(&path)
        .with_context(|| format!("--with-registry-auth: cannot read {} (`docker login` writes it)", path.display()))?;
    let registry = registry_of(image);
    let found = get_credential_from_reader(&config[..], registry)
        .map_err(|error| anyhow!(problem(&config, registry, error)))
        .with_context(|| format!("--with-registry-auth: {}", path.display()))?;
    let mut fields = BTreeMap::from([("serveraddress", registry)]);
    match &found {
        DockerCredential::IdentityToken(token) => drop(fields.insert("identitytoken", token)),
        DockerCredential::UsernamePassword(user, password) => {
            fields.extend([("username", user.as_str()), ("password", password.trim_end_matches('\0'))]);
        }
    }
    let json = serde_json::to_vec(&fields).context("the credentials cannot be written as JSON")?;
    Ok(Redacted::new(URL_SAFE.encode(json)))
}

/// Why there are no credentials, and what to do.
fn problem(config: &[u8], registry: &str, error: CredentialRetrievalError) -> String {
    let none = || format!("there are no credentials for {registry}; run: docker login {registry}");
    let helper = || {
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let name = config["credHelpers"][registry].as_str().or(config["credsStore"].as_str()).unwrap_or_default();
        format!("the credential helper docker-credential-{name}")
    };
    match error {
        CredentialRetrievalError::NoCredentialConfigured => none(),
        // The protocol of credential helpers fixes these words.
        CredentialRetrievalError::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => none(),
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            format!("{} fails: {}", helper(), one_line(&format!("{stdout} {stderr}")))
        }
        CredentialRetrievalError::HelperCommunicationError => {
            format!("{} cannot be run: it has to be installed, in a folder of PATH", helper())
        }
        CredentialRetrievalError::MalformedHelperResponse => format!("the answer of {} is not understood", helper()),
        CredentialRetrievalError::CredentialDecodingError => {
            format!("the credentials for {registry} are not base64 of user:password")
        }
        CredentialRetrievalError::ConfigReadError => "the file is broken".to_owned(),
        error => error.to_string(),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Distribution {
    #[serde(rename = "Descriptor")]
    descriptor: Descriptor,
    #[serde(rename = "Platforms")]
    platforms: Vec<RegistryPlatform>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RegistryPlatform {
    architecture: String,
    os: String,
}

/// Pins the image to the digest that its registry names now, so that all nodes run the same one, and notes the
/// platforms that it is made for (swarm-behaviour §11.1). If that is not possible the spec stays as it is, and the
/// warning says why.
pub(crate) async fn pin_image(client: &Client, draft: &mut Draft, auth: Option<&Redacted>) -> Result<(), String> {
    let image = draft.image();
    if image.contains('@') {
        return Ok(());
    }
    let path = format!("/distribution/{}/json", image.split('/').map(segment).collect::<Vec<_>>().join("/"));
    let request = client.get_with_auth::<Distribution>(&path, auth.map(Redacted::expose));
    let reason = match tokio::time::timeout(RESOLVE_MAX, request).await {
        Ok(Ok(found)) if found.descriptor.digest.contains(':') => {
            let platforms = found.platforms.into_iter().filter(|p| !p.os.is_empty() || !p.architecture.is_empty());
            let platforms = platforms.map(|p| Platform { architecture: p.architecture, os: p.os });
            draft.pin_image(&found.descriptor.digest, &platforms.collect::<Vec<_>>());
            return Ok(());
        }
        Ok(Ok(_)) => "it names no digest".to_owned(),
        Ok(Err(error)) => one_line(&error.to_string()),
        Err(_) => format!("no answer within {} seconds", RESOLVE_MAX.as_secs()),
    };
    Err(format!("image {image} could not be looked up in a registry, nodes may run different versions of it: {reason}"))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn auth(config: Value, image: &str) -> Result<Value, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let env = |name: &str| (name == "DOCKER_CONFIG").then(|| folder.path().display().to_string());
        let header = stored_credentials(image, env).map_err(|e| format!("{e:#}"))?;
        Ok(serde_json::from_slice(&URL_SAFE.decode(header.expose()).unwrap()).unwrap())
    }

    #[test]
    fn credentials_of_the_images_registry_are_taken() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:a:b")},
            "reg.example:5000": {"auth": STANDARD.encode("<token>:"), "identitytoken": "tok"},
        }});
        assert_eq!(
            auth(config.clone(), "nginx"),
            Ok(json!({"username": "hub", "password": "a:b", "serveraddress": "https://index.docker.io/v1/"}))
        );
        assert_eq!(
            auth(config.clone(), "reg.example:5000/x"),
            Ok(json!({"identitytoken": "tok", "serveraddress": "reg.example:5000"}))
        );
        assert!(auth(config, "other.example/x").is_err_and(|e| e.contains("docker login other.example")));
    }

    #[test]
    fn helpers_and_broken_files_are_named() {
        let helper = auth(json!({"credsStore": "none-such", "auths": {"reg.example": {}}}), "reg.example/x");
        assert!(helper.is_err_and(|e| e.contains("docker-credential-none-such cannot be run")));
        let broken = auth(json!({"auths": {"reg.example": {"auth": "c2VjcmV0"}}}), "reg.example/x").unwrap_err();
        assert!(broken.contains("user:password") && !broken.contains("secret"), "{broken}");
        assert!(auth(json!([1]), "x").is_err_and(|e| e.contains("is broken")));
        assert!(stored_credentials("x", |_| None).is_err());
    }
}
