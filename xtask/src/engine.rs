//! A Docker Engine to run on: one that answers, or one that is installed and started here.

mod daemon;
mod install;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::http::{self, Address};
use crate::ui;

/// Where an engine listens unless told otherwise.
const SOCKET_DEFAULT: &str = "/var/run/docker.sock";

/// An engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    version: String,
    /// How to end it, if it was started by hand.
    stop_hint: Option<String>,
}

/// A container of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its full id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    config: Option<ImageConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfig {
    labels: Option<BTreeMap<String, String>>,
}

/// Installs the distribution's engine where there is none and that is possible.
pub(crate) fn ensure_installed() -> Result<()> {
    install::ensure_installed()
}

impl Engine {
    /// Finds an engine that answers; installs and starts one where that is possible, and says so.
    pub(crate) fn ensure() -> Result<Self> {
        if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            let Some(socket) = host.strip_prefix("unix://") else {
                bail!("DOCKER_HOST={host}: only engines on this machine will do; unset it, or give unix:///path");
            };
            return Self::at(Path::new(socket)).with_context(|| {
                format!("DOCKER_HOST={host} does not answer; start that engine, or unset DOCKER_HOST")
            });
        }
        let reason = match Self::at(Path::new(SOCKET_DEFAULT)) {
            Ok(engine) => return Ok(engine),
            Err(error) => error,
        };
        if let Ok(engine) = Self::at(&daemon::socket()) {
            return Ok(engine.stopped_by(daemon::stop_hint()));
        }
        ui::say(&format!("No Docker Engine answers at {SOCKET_DEFAULT} ({}).", reason.root_cause()));
        install::ensure_installed()?;
        // Where there is systemd, the package's own service is the engine.
        if install::systemd() {
            install::start_service(&|| Self::at(Path::new(SOCKET_DEFAULT)).map(drop))?;
            return Self::at(Path::new(SOCKET_DEFAULT));
        }
        daemon::start(&|| Self::at(&daemon::socket()).map(drop))?;
        Ok(Self::at(&daemon::socket())?.stopped_by(daemon::stop_hint()))
    }

    /// The engine that answers at a socket.
    pub(crate) fn at(socket: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            version: String,
        }
        let version: Version = http::get(&Address::Unix(socket.to_owned()), "/version")?;
        Ok(Self { socket: socket.to_owned(), version: version.version, stop_hint: None })
    }

    fn stopped_by(mut self, hint: Option<String>) -> Self {
        self.stop_hint = hint;
        self
    }

    /// Its address as `--engine`, `DOCKER_HOST` and `docker -H` take it.
    pub(crate) fn host(&self) -> String {
        self.address().to_string()
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// How to end it, if it was started by hand.
    pub(crate) fn stop_hint(&self) -> Option<&str> {
        self.stop_hint.as_deref()
    }

    fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    /// All containers with a label `key=value`, running or not, in the order of their names.
    pub(crate) fn containers(&self, label: &str) -> Result<Vec<Container>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
            names: Vec<String>,
            state: String,
        }
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let target = format!("/containers/json?all=true&filters={}", http::encode(&filters));
        let listed: Vec<Listed> = http::get(&self.address(), &target)?;
        let mut containers: Vec<Container> = listed
            .into_iter()
            .map(|listed| Container {
                id: listed.id,
                name: listed.names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
                running: listed.state == "running",
            })
            .collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// When a container was last started, as the engine prints it.
    pub(crate) fn started_at(&self, id: &str) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Inspected {
            state: State,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct State {
            started_at: String,
        }
        let inspected: Inspected = http::get(&self.address(), &format!("/containers/{id}/json"))?;
        Ok(inspected.state.started_at)
    }

    /// Makes a container from a request of the engine's API, and returns its id.
    pub(crate) fn create_container(&self, name: &str, body: &serde_json::Value) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            id: String,
        }
        let target = format!("/containers/create?name={}", http::encode(name));
        let body = body.to_string();
        let answer = http::call(&self.address(), "POST", &target, Some(("application/json", body.as_bytes())))?;
        let created: Created = serde_json::from_slice(&answer).context("cannot understand the engine")?;
        Ok(created.id)
    }

    /// Starts a container.
    pub(crate) fn start(&self, id: &str) -> Result<()> {
        http::call(&self.address(), "POST", &format!("/containers/{id}/start"), None).map(drop)
    }

    /// Kills a container's process, as `docker kill` does.
    pub(crate) fn kill(&self, id: &str) -> Result<()> {
        http::call(&self.address(), "POST", &format!("/containers/{id}/kill"), None).map(drop)
    }

    /// Removes a container, running or not; one that is gone already is fine.
    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        let answer = http::send(&self.address(), "DELETE", &format!("/containers/{id}?force=true"), None)?;
        match answer.status {
            204 | 404 => Ok(()),
            status => bail!("cannot remove container {id}: {status} {}", answer.message()),
        }
    }

    /// The labels of an image, if there is such an image.
    pub(crate) fn image_labels(&self, reference: &str) -> Result<Option<BTreeMap<String, String>>> {
        let image = self.image(reference)?;
        Ok(image.map(|image| image.config.and_then(|config| config.labels).unwrap_or_default()))
    }

    /// The id of an image, if there is such an image.
    pub(crate) fn image_id(&self, reference: &str) -> Result<Option<String>> {
        Ok(self.image(reference)?.map(|image| image.id))
    }

    fn image(&self, reference: &str) -> Result<Option<Image>> {
        let answer = http::send(&self.address(), "GET", &format!("/images/{reference}/json"), None)?;
        match answer.status {
            404 => Ok(None),
            200 => serde_json::from_slice(&answer.body)
                .map(Some)
                .with_context(|| format!("cannot understand what the engine says of image {reference}")),
            status => bail!("cannot look at image {reference}: {status} {}", answer.message()),
        }
    }

    /// Makes an image of a tar archive, as `docker import` does; `changes` are lines of a Dockerfile.
    pub(crate) fn import(&self, name: &str, tag: &str, changes: &[String], tar: &[u8]) -> Result<()> {
        let mut target = format!("/images/create?fromSrc=-&repo={}&tag={}", http::encode(name), http::encode(tag));
        for change in changes {
            target.push_str(&format!("&changes={}", http::encode(change)));
        }
        let answer = http::call(&self.address(), "POST", &target, Some(("application/x-tar", tar)))?;
        // The engine reports a failure in the stream, after its 200.
        let said = String::from_utf8_lossy(&answer);
        if said.contains("\"error\"") {
            bail!("cannot import image {name}:{tag}: {}", said.trim());
        }
        Ok(())
    }

    /// Removes an image; one that is gone already, or in use, is left as it is.
    pub(crate) fn remove_image(&self, reference: &str) -> Result<()> {
        let answer = http::send(&self.address(), "DELETE", &format!("/images/{reference}"), None)?;
        match answer.status {
            200 | 404 | 409 => Ok(()),
            status => bail!("cannot remove image {reference}: {status} {}", answer.message()),
        }
    }
}
