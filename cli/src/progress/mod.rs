//! Waiting until a service is what it should be (swarm-behaviour §11.5).
//!
//! Every 200 ms the service, its up-to-date tasks and the nodes are read. The wait ends when as many tasks run as
//! there should be, and still do after the monitor period. Where Swarm would wait for ever it also ends, with an
//! error: when a task keeps failing, and at `--timeout`.

mod display;
mod failures;
mod job;
mod source;
mod view;

use std::{collections::BTreeSet, time::Duration};

use swarm_docker_api::view::{ServiceView, TaskView, UpdateStatusView};
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use display::Display;
pub(crate) use failures::last_failure;
pub(crate) use source::{ApiSource, Snapshot, Source};

use self::{
    failures::{Failures, ended_task_ids},
    view::{Progress, View, is_updating},
};
use crate::{error::Hinted, tasks::with_name};

/// Time between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(200);
/// Time for which tasks must stay up if the service does not say (swarm-behaviour §11.5).
const MONITOR_DEFAULT: Duration = Duration::from_secs(5);
/// How long a task may wait for a node before the wait says what to do about it.
const PENDING_PATIENCE: Duration = Duration::from_secs(3);
/// How long swarmd may be without answers before the wait is given up: elections and restarts pass within it.
pub(crate) const OUTAGE_MAX: Duration = Duration::from_secs(15);

/// How a wait ended without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service is what it should be.
    Converged,
    /// The service is again what it was before its update. This is what was said of it when the rollback began; empty if
    /// nobody heard it.
    RolledBack(String),
    /// The user pressed Ctrl-C; the cluster goes on.
    Interrupted,
}

/// When a wait is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    after_ns: i64,
}

impl Deadline {
    /// So many nanoseconds from now.
    pub(crate) fn after_ns(ns: i64) -> Self {
        Self { at: Instant::now() + Duration::from_nanos(ns.unsigned_abs()), after_ns: ns }
    }
}

/// What was so before the change that is waited for, and is none of its doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// Tasks that had ended.
    pub(crate) ended: BTreeSet<String>,
    /// How its last update, or rollback, was.
    pub(crate) update: Option<UpdateStatusView>,
}

impl Before {
    /// As a service and its tasks are now.
    pub(crate) fn of(service: &ServiceView, tasks: &[TaskView]) -> Self {
        Self { ended: ended_task_ids(tasks), update: service.update_status.clone() }
    }
}

/// A wait for one service.
pub(crate) struct Wait<'o> {
    view: View,
    failures: Failures,
    display: Display<'o>,
    last: Option<Progress>,
    update_before: Option<UpdateStatusView>,
    /// What a rollback said when it began: in the end it only says that it is complete.
    rolled_back: String,
}

impl<'o> Wait<'o> {
    /// A wait that shows itself on `display`.
    pub(crate) fn new(display: Display<'o>, before: Before) -> Self {
        Self {
            view: View::default(),
            failures: Failures::new(before.ended),
            update_before: before.update,
            display,
            last: None,
            rolled_back: String::new(),
        }
    }

    /// Waits until the service has converged, `interrupt` is ready, or the deadline passes.
    ///
    /// # Errors
    /// The service cannot converge, the deadline has passed, or swarmd does not answer.
    pub(crate) async fn run(
        mut self,
        source: &mut impl Source,
        deadline: Option<Deadline>,
        interrupt: impl Future<Output = ()>,
    ) -> anyhow::Result<Outcome> {
        let poll = async {
            match deadline {
                None => self.poll(source).await,
                Some(deadline) => match timeout_at(deadline.at, self.poll(source)).await {
                    Ok(result) => result,
                    Err(_) => Err(self.timed_out(deadline.after_ns).into()),
                },
            }
        };
        tokio::select! {
            result = poll => result,
            () = interrupt => Ok(Outcome::Interrupted),
        }
    }

    async fn poll(&mut self, source: &mut impl Source) -> anyhow::Result<Outcome> {
        let mut steady_since: Option<Instant> = None;
        let mut outage_since: Option<Instant> = None;
        let mut pending_since: Option<Instant> = None;
        loop {
            let snapshot = match source.poll().await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    let since = *outage_since.get_or_insert_with(Instant::now);
                    if !error.is_transient() || since.elapsed() >= OUTAGE_MAX {
                        return Err(error.into());
                    }
                    sleep(POLL).await;
                    continue;
                }
            };
            outage_since = None;
            let progress = self.view.update(&snapshot);
            self.failures.observe(&snapshot.tasks);
            if let Some(message) = update_message(&snapshot.service, "rollback_started") {
                self.rolled_back = message.to_owned();
                self.display.set("rollback", message.to_owned())?;
            }
            self.display.progress(&progress)?;
            self.show_waiting(&snapshot, &mut pending_since)?;
            let is_job = progress.is_job;
            let converged = progress.converged;
            self.last = Some(progress);
            if self.update_ended(&snapshot, converged)? {
                return Ok(Outcome::Converged);
            }
            if converged {
                let now = Instant::now();
                let since = *steady_since.get_or_insert(now);
                if is_job {
                    self.display.set("job", "complete".to_owned())?;
                    return Ok(Outcome::Converged);
                }
                let left = monitor_of(&snapshot).saturating_sub(now - since);
                // The manager's monitor may end a little after ours, and what it then finds is how the update ended.
                if left.is_zero() && !is_updating(&snapshot.service) {
                    self.display.set("verify", format!("Service {} converged", snapshot.service.id))?;
                    let rollback = rollback(&snapshot.service);
                    let Some(rollback) = rollback.filter(|rollback| self.update_before.as_ref() != Some(rollback))
                    else {
                        return Ok(Outcome::Converged);
                    };
                    let message = rollback.message.as_str();
                    if !message.is_empty() {
                        self.display.set("rollback", message.to_owned())?;
                        // It may be over before it was seen to begin.
                        if let (true, Some((_, why))) = (self.rolled_back.is_empty(), message.split_once(": ")) {
                            self.rolled_back = why.to_owned();
                        }
                    }
                    return Ok(Outcome::RolledBack(std::mem::take(&mut self.rolled_back)));
                }
                self.display.countdown("verify", (left.as_secs_f64().ceil() as u64).max(1))?;
            } else {
                if steady_since.take().is_some() {
                    self.display.set("verify", "Detected task failure".to_owned())?;
                }
                // During an update its policy judges the failures: it pauses, goes on or rolls back.
                if !is_updating(&snapshot.service) {
                    self.check_failures(&snapshot)?;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Says what to do when a task has waited for a node for a while, and when that is over.
    fn show_waiting(&mut self, snapshot: &Snapshot, since: &mut Option<Instant>) -> std::io::Result<()> {
        let Some(reason) = without_node(snapshot) else {
            return match since.take().filter(|since| since.elapsed() >= PENDING_PATIENCE) {
                Some(_) => self.display.set("waiting", "none, all tasks have a node".to_owned()),
                None => Ok(()),
            };
        };
        if since.get_or_insert_with(Instant::now).elapsed() < PENDING_PATIENCE {
            return Ok(());
        }
        let name = &snapshot.service.spec.name;
        self.display.set("waiting", format!("{reason}. See: swarmctl service why {name}"))
    }

    /// Whether the state of an update ends the wait (swarm-behaviour §11.5).
    fn update_ended(&self, snapshot: &Snapshot, converged: bool) -> Result<bool, Hinted> {
        let Some(status) = &snapshot.service.update_status else { return Ok(false) };
        let (what, ways_on) = match status.state.as_str() {
            "paused" => ("update", "swarmctl service update --rollback"),
            "rollback_paused" => ("rollback", "swarmctl service history"),
            "completed" if !converged => return self.completed(snapshot),
            _ => return Ok(false),
        };
        let name = &snapshot.service.spec.name;
        let said = || with_name(&status.message, &snapshot.tasks, name);
        let why = last_failure(&snapshot.tasks, self.failures.ignored(), name).unwrap_or_else(said);
        // It was before: the change itself is made, and what runs stays until the update goes on.
        let was_paused = self.update_before.as_ref() == Some(status);
        Err(Hinted {
            message: match was_paused {
                true => format!("service {name} is changed, but its {what} is still paused: {why}"),
                false => format!("the {what} of service {name} is paused: {why}"),
            },
            hint: format!(
                "See: swarmctl service why {name}. Try it again: swarmctl service update --force {name}. \
                 Go back: {ways_on} {name}"
            ),
        })
    }

    /// Whether there is nothing to wait for after an update that is complete, though its tasks do not run: with failure
    /// action continue it completes however many of them have failed. While some are on their way, failures in a row
    /// end the wait.
    fn completed(&self, snapshot: &Snapshot) -> Result<bool, Hinted> {
        if is_any_on_its_way(snapshot) {
            return Ok(false);
        }
        self.check_failures(snapshot)?;
        let name = &snapshot.service.spec.name;
        match last_failure(&snapshot.tasks, self.failures.ignored(), name) {
            None => Ok(true),
            Some(failure) => Err(Hinted {
                message: format!("the update of service {name} is complete, but not all its tasks run: {failure}"),
                hint: see(name),
            }),
        }
    }

    fn check_failures(&self, snapshot: &Snapshot) -> Result<(), Hinted> {
        let service = &snapshot.service;
        let Some(failure) = self.failures.hopeless(&service.spec) else { return Ok(()) };
        let name = &service.spec.name;
        Err(Hinted {
            message: format!(
                "service {name} does not converge: task {name}.{} {} {}: {}",
                failure.place,
                failure.what,
                failure.times(),
                failure.reason
            ),
            hint: if failure.is_final { see(name) } else { look_at(name) },
        })
    }

    fn timed_out(&self, after_ns: i64) -> Hinted {
        let after = crate::units::format_duration(after_ns);
        let Some(last) = &self.last else {
            return Hinted {
                message: format!("gave up after {after}: swarmd has not shown the service yet"),
                hint: "A change may have been made or not: look before you repeat it.".to_owned(),
            };
        };
        let state = match (last.converged, last.lines.iter().find_map(|l| Some((l, l.error.as_ref()?)))) {
            (true, _) => format!("{}, but not yet for long enough to be called stable", last.overall),
            (false, Some((line, error))) => format!("{}; {} says: {error}", last.overall, line.id),
            (false, None) => last.overall.clone(),
        };
        Hinted {
            message: format!("service {} did not converge within {after}: {state}", last.service),
            hint: look_at(&last.service),
        }
    }
}

/// What the update of a service says, if it is in this state and says something.
fn update_message<'s>(service: &'s ServiceView, state: &str) -> Option<&'s str> {
    let status = service.update_status.as_ref().filter(|status| status.state == state)?;
    Some(status.message.as_str()).filter(|message| !message.is_empty())
}

/// The rollback that is complete.
fn rollback(service: &ServiceView) -> Option<&UpdateStatusView> {
    service.update_status.as_ref().filter(|status| status.state == "rollback_completed")
}

fn look_at(service: &str) -> String {
    format!("The cluster goes on trying. {}", see(service))
}

fn see(service: &str) -> String {
    format!("See: swarmctl service why {service}; swarmctl service logs {service}")
}

/// Whether a task that should run does not yet. On a node that is down nothing goes on.
fn is_any_on_its_way(snapshot: &Snapshot) -> bool {
    let mut wanted = snapshot.tasks.iter().filter(|task| !view::is_terminal(&task.desired_state));
    wanted.any(|task| task.status.state != "running" && snapshot.may_move(task))
}

/// Why a task that should run finds no node, if there is one.
fn without_node(snapshot: &Snapshot) -> Option<String> {
    let mut tasks = snapshot.tasks.iter().filter(|task| task.status.state == "pending" && !task.status.err.is_empty());
    let task = tasks.find(|task| !view::is_terminal(&task.desired_state))?;
    Some(crate::units::one_line(&task.status.err))
}

fn monitor_of(snapshot: &Snapshot) -> Duration {
    let monitor_ns = snapshot.service.spec.update_config.as_ref().and_then(|c| c.monitor_ns);
    match monitor_ns.and_then(|ns| u64::try_from(ns).ok()) {
        Some(ns) if ns > 0 => Duration::from_nanos(ns),
        _ => MONITOR_DEFAULT,
    }
}

#[cfg(test)]
mod tests;
