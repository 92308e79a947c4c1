//! Changing a service: read it, change the spec, write it back (swarm-behaviour §11.3).

use serde_json::Value;
use swarm_docker_api::view::{ServiceView, TaskView, UpdateServiceResponse};
use swarm_model::Secret;

use super::{super::check_version::CheckVersion, no_such_service};
use crate::{
    client::{ClientError, Query, read, segment},
    context::Context,
    filters,
    progress::Before,
};

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

    /// Writes a spec, if nobody changed the service meanwhile; `query` has what belongs to the change.
    ///
    /// # Errors
    /// swarmd refuses, or does not answer.
    pub(super) async fn write(
        mut self,
        context: &mut Context,
        query: Query,
        spec: &Value,
        auth: Option<&Secret>,
    ) -> anyhow::Result<Changed> {
        let before = self.before(context).await?;
        let path = format!("/services/{}/update", segment(&self.view.id));
        let answer = loop {
            let query = query.clone().with("version", self.view.version.index);
            match context.client.post(&path, query, spec, auth.map(Secret::expose)).await {
                Err(error) if error.is_stale() => self.catch_up(context, error).await?,
                result => break result?,
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
        self.write(context, Query::new().with("rollback", "previous"), &spec, None).await
    }
}
