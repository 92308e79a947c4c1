//! `service scale`

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use swarm_model::{REPLICAS_MAX, ServiceMode};

use super::{super::check_version::CheckVersion, change::Current, wait::WaitFlags};
use crate::{
    client::Query,
    context::Context,
    error::{Reported, hint},
    progress::Outcome,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service scale web=5
  swarmctl service scale web=5 api=2 --timeout 1m
  swarmctl service scale -d web=0";

/// Change the number of tasks of services
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Scale {
    /// Services with their numbers of tasks
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = parse_target)]
    targets: Vec<(String, u64)>,
    #[command(flatten)]
    check: CheckVersion,
    #[command(flatten)]
    wait: WaitFlags,
}

impl Scale {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.check.version.is_some() && self.targets.len() > 1 {
            bail!("--check-version belongs to the plan of one service: scale one at a time");
        }
        let deadline = self.wait.deadline();
        let mut changes = Vec::new();
        let mut failed = false;
        for (reference, replicas) in self.targets {
            match Change::read(context, &reference, replicas, self.check).await {
                Ok(change) => changes.push(change),
                Err(error) => failed |= report(context, &reference, &error),
            }
        }
        if failed {
            if !changes.is_empty() {
                context.out.note("Nothing was scaled.");
            }
            return Err(Reported.into());
        }
        if let Some(twice) = named_twice(&changes) {
            bail!("{twice} is named twice; nothing was scaled");
        }
        let mut scaled = Vec::new();
        for Change { reference, replicas, current, spec } in changes {
            match current
                .write(context, Query::new(), spec, None, Some(&|current| self::scaled(current, replicas)))
                .await
            {
                Ok(service) => {
                    context.out.line(&format!("{reference} scaled to {replicas}"))?;
                    scaled.push(service);
                }
                Err(error) => failed |= report(context, &reference, &error),
            }
        }
        for service in scaled {
            if self.wait.wait(context, &service.id, deadline, service.before).await? == Outcome::Interrupted {
                break;
            }
        }
        if failed { Err(Reported.into()) } else { Ok(()) }
    }
}

/// One of the services to be scaled, as it is before that. All are read before the first is changed, so that a misspelt
/// name changes nothing.
struct Change {
    reference: String,
    replicas: u64,
    current: Current,
    spec: Value,
}

impl Change {
    async fn read(context: &Context, reference: &str, replicas: u64, check: CheckVersion) -> anyhow::Result<Self> {
        let current = Current::read_at(context, reference, check).await?;
        let spec = scaled(&current, replicas)?;
        Ok(Self { reference: reference.to_owned(), replicas, current, spec })
    }
}

/// Says why a service is not scaled; true, for something failed.
fn report(context: &mut Context, reference: &str, error: &anyhow::Error) -> bool {
    context.out.note(&format!("Error: {reference}: {error:#}"));
    if let Some(hint) = hint(error) {
        context.out.note(&hint);
    }
    true
}

fn named_twice(changes: &[Change]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    changes.iter().find(|change| !seen.insert(&change.current.view.id)).map(|change| change.reference.as_str())
}

/// The spec of a service with another number of tasks.
pub(super) fn scaled(current: &Current, replicas: u64) -> anyhow::Result<Value> {
    let number = match &current.view.spec.mode {
        ServiceMode::Replicated { .. } => "/Mode/Replicated/Replicas",
        ServiceMode::ReplicatedJob(_) => "/Mode/ReplicatedJob/TotalCompletions",
        ServiceMode::Global | ServiceMode::GlobalJob => {
            bail!("scale can only be used with replicated services; this one runs one task on each node")
        }
    };
    // The manager would say so as well, but after other services were scaled.
    ensure!(replicas <= REPLICAS_MAX, "invalid replicas value {replicas}: at most {REPLICAS_MAX} are possible");
    let mut spec = current.spec.clone();
    *spec.pointer_mut(number).context("swarmd shows no number of tasks for this service")? = replicas.into();
    Ok(spec)
}

pub(super) fn parse_target(text: &str) -> Result<(String, u64), String> {
    let (service, number) =
        text.rsplit_once('=').ok_or_else(|| format!("'{text}' is not SERVICE=REPLICAS, for example web=3"))?;
    match number.parse() {
        Ok(replicas) if !service.is_empty() => Ok((service.to_owned(), replicas)),
        _ => Err(format!("'{text}' is not SERVICE=REPLICAS, for example web=3")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets() {
        assert_eq!(parse_target("web=3"), Ok(("web".into(), 3)));
        for text in ["web", "web=", "=3", "web=-1", "web=many"] {
            assert!(parse_target(text).is_err_and(|e| e.contains(text)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_target_or_refused(text in "\\PC{0,20}") {
            let _ = parse_target(&text);
        }
    }
}
