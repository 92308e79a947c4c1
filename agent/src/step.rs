//! One task: what to do next (swarm-behaviour §2.4). Pure.
//!
//! [`step`] looks at what is wanted, how far the task is and what is known of its container, and names one action.
//! States only go up, and a task that has ended stays as it ended; what is left then is to get rid of its container.

use std::sync::Arc;

use swarm_model::{ContainerStatus, DesiredState, TaskState, TaskStatus, Timestamp};
use swarm_wire::agent::AssignedTask;

use crate::executor::{Exited, Health, Observed};

/// A task of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalTask {
    /// As the manager sent it; the desired state is the highest ever sent.
    pub assigned: AssignedTask,
    /// How far it is.
    pub status: TaskStatus,
    /// Whether it left the assignment: its container is to go, then it is forgotten.
    pub leaving: bool,
    /// Whether its container was unhealthy: its end is then a failure whatever the exit code.
    pub unhealthy: bool,
    /// When the run of its container began that is this task, by the engine's clock; zero as long as it is not known. A
    /// later run is somebody else's doing.
    pub started_at: Timestamp,
}

impl LocalTask {
    /// A task that has just been assigned.
    pub fn new(assigned: AssignedTask, at: Timestamp) -> Self {
        let status = TaskStatus::new(TaskState::Assigned, at);
        Self { assigned, status, leaving: false, unhealthy: false, started_at: Timestamp::ZERO }
    }

    /// Whether somebody else started the container again.
    pub(crate) fn was_restarted(&self, observed: &Observed) -> bool {
        let (known, seen) = (self.started_at, observed.started_at());
        !known.is_zero() && !seen.is_zero() && known != seen
    }
}

/// The error of a task whose container somebody else started again.
pub(crate) const RESTARTED: &str = "the container was restarted from outside";

/// What to do next with a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Park,
    /// Go up to this state, with an error for a state that is one.
    Enter(TaskState, Option<Arc<str>>),
    /// Find out how the container is.
    Inspect,
    /// Get the image and create the container.
    Prepare,
    /// Start the container of this id.
    Start(String),
    /// Stop the container of this id.
    Stop(String),
    /// Stop the container of this id without grace.
    Kill(String),
    /// Stop and remove the container of this id.
    Remove(String),
    /// Nothing is left of it.
    Forget,
}

/// Names the next action of a task. Applied again and again with the outcome, it comes to [`Action::Park`] or
/// [`Action::Forget`].
pub fn step(task: &LocalTask, observed: &Observed) -> Action {
    let state = task.status.state;
    let desired = task.assigned.desired;
    if task.leaving || (desired == DesiredState::Remove && state.is_terminal()) {
        return match (observed, observed.container_id()) {
            (_, Some(id)) => Action::Remove(id.into()),
            (Observed::Absent, None) if task.leaving => Action::Forget,
            (Observed::Absent, None) => Action::Park,
            (_, None) => Action::Inspect,
        };
    }
    if state.is_terminal() {
        // Somebody else started it. Another task may already be in its place: two must not run for a whole grace.
        return match observed {
            Observed::Unknown => Action::Inspect,
            Observed::Running(r) => Action::Kill(r.id.clone()),
            Observed::Absent | Observed::Created { .. } | Observed::Exited(_) => Action::Park,
        };
    }
    if !desired.is_live() {
        return match observed {
            Observed::Unknown => Action::Inspect,
            Observed::Running(r) => Action::Stop(r.id.clone()),
            Observed::Absent | Observed::Created { .. } | Observed::Exited(_) => {
                Action::Enter(TaskState::Shutdown, None)
            }
        };
    }
    match state {
        TaskState::Pending | TaskState::Assigned => Action::Enter(TaskState::Accepted, None),
        TaskState::Accepted => Action::Enter(TaskState::Preparing, None),
        TaskState::Preparing => match observed {
            Observed::Unknown => Action::Inspect,
            Observed::Absent => Action::Prepare,
            Observed::Created { .. } | Observed::Running(_) | Observed::Exited(_) => {
                Action::Enter(TaskState::Ready, None)
            }
        },
        TaskState::Ready if desired == DesiredState::Ready => Action::Park,
        TaskState::Ready => Action::Enter(TaskState::Starting, None),
        TaskState::Starting => match observed {
            Observed::Created { id } => Action::Start(id.clone()),
            Observed::Running(r)
                if matches!(r.health, Health::None | Health::Healthy)
                    && !task.unhealthy
                    && !task.was_restarted(observed) =>
            {
                Action::Enter(TaskState::Running, None)
            }
            other => step_started(task, other),
        },
        _ => step_started(task, observed),
    }
}

/// A task whose container was started.
fn step_started(task: &LocalTask, observed: &Observed) -> Action {
    match observed {
        Observed::Unknown => Action::Inspect,
        Observed::Running(r) if task.unhealthy || r.health == Health::Unhealthy || task.was_restarted(observed) => {
            Action::Stop(r.id.clone())
        }
        Observed::Running(_) => Action::Park,
        Observed::Exited(_) if task.was_restarted(observed) => Action::Enter(TaskState::Failed, Some(RESTARTED.into())),
        Observed::Exited(end) => end_of(task, end),
        Observed::Absent => Action::Enter(TaskState::Failed, Some("the container was removed from outside".into())),
        Observed::Created { .. } => {
            Action::Enter(TaskState::Failed, Some("the container was replaced from outside".into()))
        }
    }
}

fn end_of(task: &LocalTask, end: &Exited) -> Action {
    let mut error = match end.exit_code {
        _ if task.unhealthy => "unhealthy container".to_owned(),
        0 if !end.oom_killed => return Action::Enter(TaskState::Complete, None),
        code => format!("task: non-zero exit ({code})"),
    };
    if end.oom_killed {
        error.push_str(": killed because it was out of memory");
    }
    if !end.error.is_empty() {
        error.push_str(": ");
        error.push_str(&end.error);
    }
    Action::Enter(TaskState::Failed, Some(error.into()))
}

/// The state that a fatal error leads to (swarm-behaviour §2.4).
pub(crate) fn state_after_error(state: TaskState) -> TaskState {
    if state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed }
}

/// The status of a task that enters a state, with what is known of its container (swarm-behaviour §2.4).
pub(crate) fn status(state: TaskState, err: Option<Arc<str>>, observed: &Observed, at: Timestamp) -> TaskStatus {
    let mut status = TaskStatus { err, ..TaskStatus::new(state, at) };
    if state < TaskState::Starting || state == TaskState::Rejected {
        return status;
    }
    let (pid, exit_code) = match observed {
        Observed::Running(r) => (r.pid, None),
        Observed::Exited(e) => (0, Some(e.exit_code)),
        _ => (0, None),
    };
    if let Some(id) = observed.container_id() {
        status.container = Some(Arc::new(ContainerStatus { id: id.into(), pid, exit_code }));
    }
    if let (Observed::Running(r), TaskState::Running) = (observed, state) {
        status.ports = r.ports.clone().into();
    }
    status
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::{DesiredState as D, TaskState as S};

    use super::*;
    use crate::executor::Running;

    fn task(desired: D, state: S) -> LocalTask {
        let assigned = crate::testing::assigned_task(7, desired);
        let mut task = LocalTask::new(assigned, Timestamp::ZERO);
        task.status.state = state;
        task
    }

    fn created() -> Observed {
        Observed::Created { id: "c".into() }
    }
    fn running(health: Health) -> Observed {
        Observed::Running(Running { id: "c".into(), health, ..Running::default() })
    }
    fn exited(exit_code: i64) -> Observed {
        Observed::Exited(Exited { id: "c".into(), exit_code, ..Exited::default() })
    }
    fn failed(text: &str) -> Action {
        Action::Enter(S::Failed, Some(text.into()))
    }

    #[test]
    fn each_row_of_the_table() {
        let start = || Action::Start("c".into());
        let stop = || Action::Stop("c".into());
        let kill = || Action::Kill("c".into());
        let remove = || Action::Remove("c".into());
        let enter = |s| Action::Enter(s, None);
        for (desired, state, observed, action) in [
            // The way up.
            (D::Running, S::Assigned, Observed::Absent, enter(S::Accepted)),
            (D::Ready, S::Accepted, Observed::Absent, enter(S::Preparing)),
            (D::Ready, S::Preparing, Observed::Absent, Action::Prepare),
            (D::Ready, S::Preparing, created(), enter(S::Ready)),
            (D::Ready, S::Ready, created(), Action::Park),
            (D::Running, S::Ready, created(), enter(S::Starting)),
            (D::Complete, S::Ready, created(), enter(S::Starting)),
            (D::Running, S::Starting, created(), start()),
            (D::Running, S::Starting, running(Health::None), enter(S::Running)),
            (D::Running, S::Starting, running(Health::Starting), Action::Park),
            (D::Running, S::Starting, running(Health::Healthy), enter(S::Running)),
            (D::Running, S::Running, running(Health::Healthy), Action::Park),
            // The ends.
            (D::Running, S::Starting, running(Health::Unhealthy), stop()),
            (D::Running, S::Running, running(Health::Unhealthy), stop()),
            (D::Running, S::Running, exited(0), enter(S::Complete)),
            (D::Running, S::Starting, exited(0), enter(S::Complete)),
            (D::Running, S::Running, exited(3), failed("task: non-zero exit (3)")),
            (D::Running, S::Running, Observed::Absent, failed("the container was removed from outside")),
            // Adoption.
            (D::Running, S::Preparing, Observed::Unknown, Action::Inspect),
            (D::Running, S::Running, Observed::Unknown, Action::Inspect),
            (D::Running, S::Preparing, running(Health::None), enter(S::Ready)),
            // Stopping.
            (D::Shutdown, S::Assigned, Observed::Absent, enter(S::Shutdown)),
            (D::Shutdown, S::Ready, created(), enter(S::Shutdown)),
            (D::Shutdown, S::Running, Observed::Unknown, Action::Inspect),
            (D::Shutdown, S::Running, running(Health::None), stop()),
            (D::Remove, S::Running, running(Health::None), stop()),
            (D::Remove, S::Running, exited(137), enter(S::Shutdown)),
            // After the end.
            (D::Shutdown, S::Shutdown, exited(0), Action::Park),
            (D::Running, S::Failed, exited(1), Action::Park),
            (D::Running, S::Failed, running(Health::None), kill()),
            (D::Running, S::Complete, running(Health::None), kill()),
            (D::Complete, S::Complete, running(Health::None), kill()),
            (D::Shutdown, S::Shutdown, running(Health::Healthy), kill()),
            (D::Running, S::Failed, Observed::Unknown, Action::Inspect),
            (D::Running, S::Failed, Observed::Absent, Action::Park),
            (D::Remove, S::Shutdown, exited(0), remove()),
            (D::Remove, S::Failed, Observed::Unknown, Action::Inspect),
            (D::Remove, S::Rejected, Observed::Absent, Action::Park),
        ] {
            let found = step(&task(desired, state), &observed);
            assert_eq!(found, action, "desired {desired}, state {state}, container {observed:?}");
        }
    }

    #[test]
    fn a_task_that_leaves_takes_its_container_along() {
        let mut leaving = task(D::Running, S::Running);
        leaving.leaving = true;
        assert_eq!(step(&leaving, &Observed::Unknown), Action::Inspect);
        assert_eq!(step(&leaving, &running(Health::None)), Action::Remove("c".into()));
        assert_eq!(step(&leaving, &Observed::Absent), Action::Forget);
    }

    #[test]
    fn an_unhealthy_container_fails_even_with_exit_code_0_and_want_of_memory_is_said() {
        let mut sick = task(D::Running, S::Running);
        sick.unhealthy = true;
        assert_eq!(step(&sick, &running(Health::Healthy)), Action::Stop("c".into()));
        assert_eq!(step(&sick, &exited(0)), failed("unhealthy container"));
        let oom = Exited { id: "c".into(), exit_code: 137, oom_killed: true, ..Exited::default() };
        assert_eq!(
            step(&task(D::Running, S::Running), &Observed::Exited(oom)),
            failed("task: non-zero exit (137): killed because it was out of memory")
        );
    }

    #[test]
    fn a_run_that_somebody_else_began_is_stopped_and_the_task_has_failed() {
        let run = |at| Observed::Running(Running { id: "c".into(), started_at: Timestamp(at), ..Running::default() });
        let end = |at| Observed::Exited(Exited { id: "c".into(), started_at: Timestamp(at), ..Exited::default() });
        let stop = || Action::Stop("c".into());
        for (desired, state, observed, action) in [
            (D::Running, S::Running, run(5), Action::Park),
            (D::Running, S::Running, run(6), stop()),
            (D::Running, S::Starting, run(6), stop()),
            (D::Complete, S::Running, run(6), stop()),
            (D::Shutdown, S::Running, run(6), stop()),
            (D::Running, S::Running, end(5), Action::Enter(S::Complete, None)),
            (D::Running, S::Running, end(6), failed(RESTARTED)),
            (D::Complete, S::Running, end(6), failed(RESTARTED)),
            (D::Shutdown, S::Running, end(6), Action::Enter(S::Shutdown, None)),
            // A listing does not say which run it is.
            (D::Running, S::Running, running(Health::None), Action::Park),
        ] {
            let task = LocalTask { started_at: Timestamp(5), ..task(desired, state) };
            assert_eq!(step(&task, &observed), action, "desired {desired}, state {state}, container {observed:?}");
        }
        assert_eq!(step(&task(D::Running, S::Running), &run(6)), Action::Park, "the run is not known yet");
    }

    fn any_observed() -> impl Strategy<Value = Observed> {
        prop_oneof![
            Just(Observed::Unknown),
            Just(Observed::Absent),
            Just(created()),
            prop_oneof![Just(Health::None), Just(Health::Starting), Just(Health::Healthy), Just(Health::Unhealthy)]
                .prop_map(running),
            (-1i64..256).prop_map(exited),
        ]
    }

    proptest! {
        #[test]
        fn states_only_go_up_and_nothing_runs_that_should_not(
            desired in prop_oneof![Just(D::Ready), Just(D::Running), Just(D::Complete), Just(D::Shutdown), Just(D::Remove)],
            state in 0usize..S::ALL.len(), leaving: bool, unhealthy: bool, observed in any_observed(),
        ) {
            let mut task = task(desired, S::ALL[state]);
            task.leaving = leaving;
            task.unhealthy = unhealthy;
            match step(&task, &observed) {
                Action::Enter(next, _) => prop_assert!(next > task.status.state),
                Action::Start(_) => prop_assert!(desired.is_live() && !leaving),
                Action::Prepare => prop_assert!(desired.is_live() && !leaving && observed == Observed::Absent),
                Action::Remove(_) => prop_assert!(leaving || desired == D::Remove),
                Action::Park if leaving => prop_assert!(false, "a leaving task always has something to do"),
                _ => {}
            }
        }
    }
}
