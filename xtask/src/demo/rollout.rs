//! The second half of the story: updates, a rollback, a global service, a drained node.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::cluster::STEP_LIMIT;
use super::story::{SERVICE, Story};
use super::traffic::Traffic;
use super::view::{self, TaskView};
use crate::ui;
use crate::wait::{self, Look};

/// The name of the global service.
pub(super) const GLOBAL: &str = "everywhere";
const IMAGE_GLOBAL: &str = "hello:1";
const IMAGE_NEW: &str = "hello:2";
const IMAGE_BROKEN: &str = "hello:broken";

/// Goes on with a service of so many replicas.
pub(super) fn tell(story: &mut Story, replicas: usize) -> Result<()> {
    story.step("A rolling update to another image, three at a time", |story| story.update(replicas))?;
    story.step("An update to an image that cannot start rolls itself back", |story| story.update_broken(replicas))?;
    story.step("A global service: one task on every node", Story::create_global)?;
    story.step("A node is drained, then active again", |story| story.drain(2, replicas))
}

impl Story<'_> {
    /// Runs something while clients ask the service, and adds what became of their requests to what was seen.
    fn under_requests(&mut self, run: impl FnOnce(&mut Self) -> Result<String>) -> Result<String> {
        if self.cluster.engine.is_none() {
            return run(self);
        }
        let traffic = Traffic::start(self.addresses());
        let seen = run(self)?;
        let counts = traffic.stop()?.told()?;
        Ok(format!("{seen}; meanwhile {counts}"))
    }

    /// Waits until the update of the service ends in this state.
    fn wait_for_update(&self, state: &str) -> Result<String> {
        wait::until(&format!("the update of {SERVICE} is {state}"), STEP_LIMIT, || {
            let update = view::update(&self.cluster.api(), SERVICE)?;
            Ok(if update.state == state { Look::Done(update.message) } else { Look::NotYet(update.state) })
        })
    }

    fn update(&mut self, replicas: usize) -> Result<String> {
        let seen = self.under_requests(|story| {
            let before = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            story.cluster.show(&[
                "service",
                "update",
                "--image",
                IMAGE_NEW,
                "--update-parallelism",
                "3",
                "--update-delay",
                "1s",
                SERVICE,
            ])?;
            story.wait_for_update("completed")?;
            let after = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            ensure!(after.iter().all(|task| task.image == IMAGE_NEW), "not every task runs {IMAGE_NEW}");
            ensure!(ids(&before).is_disjoint(&ids(&after)), "a task of the old image is among the new ones");
            Ok(format!("all {replicas} replicas run {IMAGE_NEW}"))
        })?;
        self.cluster.show(&["service", "ps", "--filter", "desired-state=running", SERVICE])?;
        Ok(seen)
    }

    fn update_broken(&mut self, replicas: usize) -> Result<String> {
        self.under_requests(|story| {
            let before = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            let updated = story.cluster.show(&[
                "service",
                "update",
                "--image",
                IMAGE_BROKEN,
                "--update-failure-action",
                "rollback",
                "--rollback-parallelism",
                "3",
                "--rollback-monitor",
                "1s",
                SERVICE,
            ]);
            ensure!(updated.is_err(), "swarmctl told of a broken update that it went well");
            let message = story.wait_for_update("rollback_completed")?;
            let after = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            ensure!(after.iter().all(|task| task.image == IMAGE_NEW), "not every task is back at {IMAGE_NEW}");
            let all = view::tasks(&story.cluster.api(), SERVICE)?;
            let broken: Vec<&TaskView> = all.iter().filter(|task| task.image == IMAGE_BROKEN).collect();
            let failed = broken.iter().find(|task| task.state == "failed");
            let failed = failed.with_context(|| format!("no task of {IMAGE_BROKEN} ever failed"))?;
            ui::say(&format!("A task of {IMAGE_BROKEN} ended so: {} ({})", failed.state, failed.error));
            let same = ids(&before).intersection(&ids(&after)).count();
            Ok(format!(
                "{message}: {} tasks of {IMAGE_BROKEN} were tried, {same} of {replicas} never stopped",
                broken.len()
            ))
        })
    }

    fn create_global(&mut self) -> Result<String> {
        let label = self.cluster.label();
        self.cluster.show(&[
            "service",
            "create",
            "--name",
            GLOBAL,
            "--mode",
            "global",
            "--container-label",
            &label,
            "--update-monitor",
            "1s",
            "--init",
            IMAGE_GLOBAL,
        ])?;
        let count = self.cluster.nodes.len();
        let tasks = self.cluster.wait_for_tasks(GLOBAL, count)?;
        ensure!(nodes(&tasks).len() == count, "{count} tasks are on {} nodes", nodes(&tasks).len());
        Ok(format!("{count} tasks run, one on each node"))
    }

    fn drain(&mut self, node: usize, replicas: usize) -> Result<String> {
        let (name, count) = (self.cluster.nodes[node].name.clone(), self.cluster.nodes.len());
        let id = self.cluster.node_views()?.into_iter().find(|view| view.hostname == name).context("no such node")?.id;
        self.under_requests(|story| {
            let before = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            story.cluster.show(&["node", "update", "--availability", "drain", &name])?;
            story.cluster.wait_for_tasks(GLOBAL, count - 1)?;
            let drained = wait::until(&format!("{name} has no task"), STEP_LIMIT, || {
                let tasks = story.cluster.wait_for_tasks(SERVICE, replicas)?;
                let left = tasks.iter().filter(|task| task.node_id == id).count();
                Ok(if left == 0 { Look::Done(tasks) } else { Look::NotYet(format!("{left} tasks")) })
            })?;
            let moved = ids(&drained).difference(&ids(&before)).count();
            ui::seen(&format!("{moved} replicas moved from {name}, {replicas} run"));
            story.cluster.show(&["node", "update", "--availability", "active", &name])?;
            let tasks = story.cluster.wait_for_tasks(GLOBAL, count)?;
            ensure!(nodes(&tasks).contains(id.as_str()), "{name} is active, but has no task of {GLOBAL}");
            let after = story.cluster.wait_for_tasks(SERVICE, replicas)?;
            ensure!(ids(&after) == ids(&drained), "tasks moved when {name} became active again");
            Ok(format!("{name} was drained of {moved} replicas, and got its task of {GLOBAL} back when active"))
        })
    }
}

fn ids(tasks: &[TaskView]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.id.as_str()).collect()
}

fn nodes(tasks: &[TaskView]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.node_id.as_str()).collect()
}
