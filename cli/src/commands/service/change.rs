//! Changing a service: read it, change the spec, write it back (swarm-behaviour §11.3).

use serde_json::Value;
use swarm_docker_api::view::{ServiceView, TaskView, UpdateServiceResponse};
use swarm_model::Redacted;

use super::{super::check_version::CheckVersion, no_such_service};
use crate::{
    client::{ClientError, OVERTAKEN_MAX, Query, read, segment},
    context::Context,
    filters,
    progress::Before,
};

/// Where a spec has what changes of several people go together in: maps and lists to which one adds and from which one
/// takes away, and numbers that are nobody else's business.
const COMMUTING: &[&str] = &[
    "Labels",
    "Mode/Replicated/Replicas",
    "Mode/ReplicatedJob/TotalCompletions",
    "EndpointSpec/Ports",
    "TaskTemplate/ForceUpdate",
    "TaskTemplate/Placement/Constraints",
    "TaskTemplate/Placement/Preferences",
    "TaskTemplate/Resources/Reservations/GenericResources",
    "TaskTemplate/ContainerSpec/CapabilityAdd",
    "TaskTemplate/ContainerSpec/CapabilityDrop",
    "TaskTemplate/ContainerSpec/Configs",
    "TaskTemplate/ContainerSpec/DNSConfig/Nameservers",
    "TaskTemplate/ContainerSpec/DNSConfig/Options",
    "TaskTemplate/ContainerSpec/DNSConfig/Search",
    "TaskTemplate/ContainerSpec/Env",
    "TaskTemplate/ContainerSpec/Groups",
    "TaskTemplate/ContainerSpec/Hosts",
    "TaskTemplate/ContainerSpec/Labels",
    "TaskTemplate/ContainerSpec/Mounts",
    "TaskTemplate/ContainerSpec/Secrets",
    "TaskTemplate/ContainerSpec/Sysctls",
    "TaskTemplate/ContainerSpec/Ulimits",
];

/// Makes the change of a command on what the service is now.
pub(super) type Redo<'a> = &'a (dyn Fn(&Current) -> anyhow::Result<Value> + Sync);

/// All tasks of a service, ended ones too.
///
/// # Errors
/// swarmd does not answer.
pub(super) async fn tasks_of(context: &Context, service_id: &str) -> anyhow::Result<Vec<TaskView>> {
    let filters = [("service".to_owned(), service_id.to_owned())];
    let query = Query::new().with_some("filters", filters::to_json(&filters));
    Ok(context.client.get("/tasks", query).await?)
}

/// A service as it is before a change.
pub(super) struct Current {
    /// As this program understands it.
    pub(super) view: ServiceView,
    /// The spec as the server wrote it. What this program does not know must survive a change.
    pub(super) spec: Value,
    /// The change rests on a plan, so that a later version is a refusal whatever moved it.
    planned: bool,
}

/// A service that was changed.
pub(super) struct Changed {
    /// Its id.
    pub(super) id: String,
    /// What was so before the change.
    pub(super) before: Before,
}

impl Current {
    /// Reads a service by id, name or the start of its id.
    ///
    /// # Errors
    /// There is none, or swarmd does not answer.
    pub(super) async fn read(context: &Context, reference: &str) -> anyhow::Result<Self> {
        let path = format!("/services/{}", segment(reference));
        let bytes = match context.client.get_bytes(&path, Query::new().with("insertDefaults", false)).await {
            Err(error) if error.is_not_found() => return Err(no_such_service(reference).into()),
            result => result?,
        };
        let mut object: Value = read(&path, &bytes)?;
        Ok(Self { view: read(&path, &bytes)?, spec: object["Spec"].take(), planned: false })
    }

    /// Reads a service for a change that rests on a plan.
    ///
    /// # Errors
    /// As [`Current::read`], and when something changed since the plan.
    pub(super) async fn read_at(context: &Context, reference: &str, check: CheckVersion) -> anyhow::Result<Self> {
        let current = Self::read(context, reference).await?;
        check.check(context).await?;
        Ok(Self { planned: check.version.is_some(), ..current })
    }

    /// Writes a spec, if nobody changed the service meanwhile; `query` has what belongs to the change. A change that
    /// goes together with those of others is made by `redo` on what they left.
    ///
    /// # Errors
    /// swarmd refuses, or does not answer.
    pub(super) async fn write(
        mut self,
        context: &mut Context,
        query: Query,
        mut spec: Value,
        auth: Option<&Redacted>,
        redo: Option<Redo<'_>>,
    ) -> anyhow::Result<Changed> {
        let redo = redo.filter(|_| !self.planned && without_commuting(&self.spec) == without_commuting(&spec));
        let mut before = self.before(context).await?;
        let path = format!("/services/{}/update", segment(&self.view.id));
        let mut overtaken = 0;
        let answer = loop {
            let query = query.clone().with("version", self.view.version.index);
            match (context.client.post(&path, query, &spec, auth.map(Redacted::expose)).await, redo) {
                (Err(error), Some(redo)) if error.is_stale() && overtaken < OVERTAKEN_MAX => {
                    overtaken += 1;
                    let now = Self::read(context, &self.view.id).await?;
                    if now.view.version == self.view.version {
                        return Err(error.into());
                    }
                    self = now;
                    before = self.before(context).await?;
                    spec = redo(&self)?;
                }
                (Err(error), _) if error.is_stale() => self.catch_up(context, error).await?,
                (result, _) => break result?,
            }
        };
        let answer: UpdateServiceResponse = read(&path, &answer)?;
        for warning in answer.warnings.iter().flatten() {
            context.out.note(&format!("Warning: {warning}"));
        }
        Ok(Changed { id: self.view.id, before })
    }

    /// Takes the version that the service has now, if what people change is still what was read: the progress of an
    /// update moves the version, too.
    ///
    /// # Errors
    /// The one that was there, when somebody changed the service or nothing moved, or swarmd does not answer.
    async fn catch_up(&mut self, context: &Context, stale: ClientError) -> anyhow::Result<()> {
        let now = Self::read(context, &self.view.id).await?.view;
        let same = now.spec == self.view.spec && now.previous_spec == self.view.previous_spec;
        if self.planned || !same || now.version == self.view.version {
            return Err(stale.into());
        }
        self.view.version = now.version;
        Ok(())
    }

    async fn before(&self, context: &Context) -> anyhow::Result<Before> {
        Ok(Before::of(&self.view, &tasks_of(context, &self.view.id).await?))
    }

    /// Goes back to a version of the history, or to the spec before the last change.
    ///
    /// # Errors
    /// There is none, or swarmd does not answer.
    pub(super) async fn roll_back(mut self, context: &mut Context, to: Option<u64>) -> anyhow::Result<Changed> {
        if let Some(to) = to {
            let before = self.before(context).await?;
            let path = format!("/swarmd/services/{}/rollback", segment(&self.view.id));
            loop {
                let query = Query::new().with("version", self.view.version.index).with("to", to);
                match context.client.post_empty(&path, query).await {
                    Err(error) if error.is_stale() => self.catch_up(context, error).await?,
                    result => break result?,
                };
            }
            return Ok(Changed { id: self.view.id, before });
        }
        let spec = self.spec.take();
        self.write(context, Query::new().with("rollback", "previous"), spec, None, None).await
    }
}

/// A spec without what is at [`COMMUTING`], and without the objects that are empty then.
fn without_commuting(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for path in COMMUTING {
        remove(&mut spec, path);
    }
    spec
}

fn remove(at: &mut Value, path: &str) {
    let Some(fields) = at.as_object_mut() else { return };
    match path.split_once('/') {
        None => drop(fields.remove(path)),
        Some((key, rest)) => {
            if let Some(inner) = fields.get_mut(key) {
                remove(inner, rest);
                if inner.as_object().is_some_and(serde_json::Map::is_empty) || inner.is_null() {
                    fields.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_goes_together_with_other_changes() {
        let before = json!({"Name": "web", "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {
            "ContainerSpec": {"Image": "x", "Env": ["A=1"]}, "Placement": {}}});
        for (after, commutes) in [
            (json!({"Labels": {"a": "b"}, "Mode": {"Replicated": {"Replicas": 2}}}), true),
            (json!({"TaskTemplate": {"ContainerSpec": {"Image": "x"}, "Placement": {"Constraints": ["a==b"]}}}), true),
            (json!({"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}), true),
            (json!({"EndpointSpec": {"Mode": "dnsrr"}}), false),
            (json!({"TaskTemplate": {"ContainerSpec": {"Image": "y", "Env": ["A=2"]}}}), false),
            (json!({"UpdateConfig": {"Parallelism": 2}}), false),
        ] {
            let mut changed = before.clone();
            changed.as_object_mut().unwrap().extend(after.as_object().unwrap().clone());
            assert_eq!(without_commuting(&before) == without_commuting(&changed), commutes, "{after}");
        }
    }
}
