//! Getting a task's image: from the registry if it answers, else the one that is on the host.
//!
//! As in Swarm a tag is looked up at the registry for every task, so that a moved tag is noticed (swarm-behaviour
//! §7.3). Where no registry can be reached that must cost nothing: a host that has the image waits a moment for the
//! registry's first answer, once in a while.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{Docker, errors::Error as BollardError, query_parameters::CreateImageOptions};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, WeakShared},
};
use swarm_model::Redacted;
use tokio::time::{Instant, timeout};

use super::{READ_TIME_MAX, engine_error, missing_is_none, no_answer};
use crate::executor::EngineError;

/// How long a registry may take for its first answer when the image is on the host. Registries answer in a few
/// hundred milliseconds; a name server that is not there takes 20 s to be given up.
const FIRST_ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// How long a whole pull may take.
const PULL_TIME_MAX: Duration = Duration::from_secs(3600);
/// How long a registry that did not answer, or did not have an image, is not asked again for what is on the host.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Registries and images that are remembered; when there are more, all are asked again.
const REMEMBERED_MAX: usize = 1024;

/// What a registry that answered says; anything else means that it did not.
const REFUSALS: [&str; 7] = [
    "not found",
    "manifest unknown",
    "pull access denied",
    "unauthorized",
    "authentication required",
    "denied",
    "no matching manifest",
];

#[derive(Clone, Debug, PartialEq)]
enum PullError {
    /// The engine is the problem.
    Engine(EngineError),
    /// The registry answered, with no.
    Refused(String),
    /// The registry did not answer.
    NoAnswer(String),
}

type Pull = BoxFuture<'static, Result<(), PullError>>;
/// Image and credentials.
type PullKey = (String, Option<String>);

#[derive(Default)]
struct State {
    pulls: BTreeMap<PullKey, WeakShared<Pull>>,
    /// Registries and images not to be asked again until then.
    useless_until: BTreeMap<String, Instant>,
}

/// The images of an engine.
#[derive(Default)]
pub(super) struct Images {
    state: Mutex<State>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys hold credentials.
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

impl Images {
    /// Sees to it that the image is on the host, as fresh as can be.
    pub(super) async fn provide(
        &self,
        client: &Docker,
        image: &str,
        credentials: Option<&Redacted>,
    ) -> Result<(), EngineError> {
        let local = timeout(READ_TIME_MAX, client.inspect_image(image)).await.map_err(|_| no_answer(READ_TIME_MAX))?;
        let is_local = missing_is_none(local).map_err(engine_error)?.is_some();
        if is_local && (is_pinned(image) || self.is_useless(image)) {
            return Ok(());
        }
        match self.pull(client, image, credentials, is_local).await {
            Ok(()) => Ok(()),
            Err(PullError::Engine(error)) => Err(error),
            Err(PullError::Refused(reason) | PullError::NoAnswer(reason)) if is_local => {
                tracing::info!(image, %reason, "the registry does not help; using the image that is on this host");
                Ok(())
            }
            Err(PullError::Refused(reason) | PullError::NoAnswer(reason)) => {
                Err(EngineError::Fatal(format!("No such image: {image} (it is not on this host, and: {reason})")))
            }
        }
    }

    async fn pull(
        &self,
        client: &Docker,
        image: &str,
        credentials: Option<&Redacted>,
        is_local: bool,
    ) -> Result<(), PullError> {
        let key = (image.to_owned(), credentials.map(|c| c.expose().to_owned()));
        let pull = {
            let mut state = self.lock();
            state.pulls.retain(|_, pull| pull.upgrade().is_some());
            match state.pulls.get(&key).and_then(WeakShared::upgrade) {
                Some(pull) => pull,
                None => {
                    let pull = run(client.clone(), image.to_owned(), key.1.clone(), is_local).boxed().shared();
                    if let Some(weak) = pull.downgrade() {
                        state.pulls.insert(key, weak);
                    }
                    pull
                }
            }
        };
        let result = pull.await;
        match &result {
            Err(PullError::NoAnswer(_)) => self.remember(registry(image)),
            Err(PullError::Refused(_)) => self.remember(image),
            Ok(()) | Err(PullError::Engine(_)) => {}
        }
        result
    }

    fn is_useless(&self, image: &str) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.useless_until.retain(|_, until| *until > now);
        state.useless_until.contains_key(image) || state.useless_until.contains_key(registry(image))
    }

    fn remember(&self, name: &str) {
        let mut state = self.lock();
        if state.useless_until.len() >= REMEMBERED_MAX {
            state.useless_until.clear();
        }
        state.useless_until.insert(name.to_owned(), Instant::now() + REMEMBERED);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pull from the first answer to the end. Dropping it makes the engine give up as well.
async fn run(client: Docker, image: String, credentials: Option<String>, is_local: bool) -> Result<(), PullError> {
    let client = match credentials {
        Some(text) => with_credentials(client, text)?,
        None => client,
    };
    let mut options = CreateImageOptions { from_image: Some(image.clone()), ..CreateImageOptions::default() };
    if !has_tag_or_digest(&image) {
        // Without a tag the engine would pull all of them.
        options.tag = Some("latest".into());
    }
    let mut progress = client.create_image(Some(options), None, None);
    let first_time_max = if is_local { FIRST_ANSWER_TIME_MAX } else { PULL_TIME_MAX };
    let first = timeout(first_time_max, progress.next()).await;
    let Ok(mut next) = first else {
        let secs = first_time_max.as_secs();
        return Err(PullError::NoAnswer(format!("registry {} did not answer in {secs} s", registry(&image))));
    };
    let rest = async {
        while let Some(step) = next {
            step.map_err(pull_error)?;
            next = progress.next().await;
        }
        Ok(())
    };
    let in_time = timeout(PULL_TIME_MAX, rest).await;
    in_time.unwrap_or_else(|_| Err(PullError::NoAnswer("the pull took more than an hour".into())))
}

/// Passes the header on as it came. bollard would encode it anew, in an alphabet that engines do not accept.
fn with_credentials(client: Docker, text: String) -> Result<Docker, PullError> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    let value = text.parse().ok().filter(|_| printable).ok_or_else(|| {
        PullError::Refused(
            "the registry credentials of the service are damaged; update it with --with-registry-auth".into(),
        )
    })?;
    Ok(client.with_request_modifier(move |mut request| {
        request.headers_mut().insert("x-registry-auth", Clone::clone(&value));
        request
    }))
}

fn pull_error(error: BollardError) -> PullError {
    let answered = matches!(&error, BollardError::DockerResponseServerError { status_code: 400..=499, .. });
    match engine_error(error) {
        EngineError::Fatal(text) if answered || REFUSALS.iter().any(|r| text.contains(r)) => PullError::Refused(text),
        EngineError::Fatal(text) => PullError::NoAnswer(text),
        other => PullError::Engine(other),
    }
}

/// Whether the text names one content for ever: a digest or an image id.
fn is_pinned(image: &str) -> bool {
    let is_id = image.len() == 64 && image.bytes().all(|b| b.is_ascii_hexdigit());
    image.contains("@sha256:") || image.starts_with("sha256:") || is_id
}

fn has_tag_or_digest(image: &str) -> bool {
    is_pinned(image) || image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

/// The registry of an image: what stands before the first `/` if it looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        assert_eq!(registry("hello:1"), "docker.io");
        assert_eq!(registry("library/hello"), "docker.io");
        assert_eq!(registry("localhost/hello"), "localhost");
        assert_eq!(registry("reg.example:5000/a/b:c"), "reg.example:5000");
        assert!(is_pinned("hello@sha256:00"));
        assert!(is_pinned(&"a".repeat(64)));
        assert!(!is_pinned("hello:1"));
        assert!(has_tag_or_digest("reg:5000/hello:1"));
        assert!(!has_tag_or_digest("reg:5000/hello"));
    }

    #[test]
    fn a_registry_that_says_no_has_answered() {
        let server = |status_code, message: &str| {
            pull_error(BollardError::DockerResponseServerError { status_code, message: message.into() })
        };
        assert!(matches!(server(404, "pull access denied for hello"), PullError::Refused(_)));
        assert!(matches!(server(500, "Get https://r/v2/: unauthorized"), PullError::Refused(_)));
        let no_host = "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: i/o timeout";
        assert!(matches!(server(500, no_host), PullError::NoAnswer(_)));
        assert!(matches!(server(503, "busy"), PullError::Engine(EngineError::Temporary(_))));
    }

    #[test]
    fn credentials_that_are_no_header_are_refused_and_never_printed() {
        let client =
            Docker::connect_with_http("http://127.0.0.1:1", 1, bollard::API_DEFAULT_VERSION).expect("a client");
        let Err(PullError::Refused(text)) = with_credentials(client, "geheim\n".into()) else { panic!("refused") };
        assert!(!text.contains("geheim"));
        assert!(!format!("{:?}", Images::default()).contains("geheim"));
    }
}
