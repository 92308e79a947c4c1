//! `node drain`

use anyhow::bail;
use swarm_docker_api::view::{NodeView, TaskView};
use swarm_model::{Availability, TaskState};
use tokio::time::{Instant, sleep};

use super::{super::check_version::CheckVersion, update::Update};
use crate::{
    client::{Client, ClientError, Query, segment},
    context::Context,
    error::Hinted,
    filters,
    progress::{OUTAGE_MAX, POLL},
    units::{format_duration, parse_duration},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node drain worker1
  swarmctl node drain --wait --timeout 10m worker1 worker2
  swarmctl node drain --now worker1

A service with an update policy is drained by it, and its tasks stay where they are while there is no room elsewhere. The
tasks of others move all at once; one that has no room elsewhere stops all the same, and waits for a node. No task stops
while swarmd.max-unavailable forbids it. When the timeout is over, and at once with --now, the node is emptied: all tasks
move, and those that have no room elsewhere stop. `docker node update --availability drain` drains like --now, unless the
node has the label swarmd.drain=policy. What will happen: `swarmctl service plan drain NODE`.
`swarmctl node update --availability active NODE` takes the drain back.

Exit code: 0 when the nodes are drained (with --wait: and empty), 1 otherwise.";

/// Take all tasks off nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Drain {
    /// Host names or ids, or 'self'
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// Wait until no task is left on them
    #[arg(long)]
    wait: bool,
    /// How long the drain goes by the policies of the services; then the node is emptied
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h", conflicts_with = "now")]
    timeout: i64,
    /// Empty the nodes at once, whatever the policies of the services say
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    check: CheckVersion,
}

/// Whether a drain keeps to the policies of the services.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// No: the node is emptied at once.
    Now,
    /// Yes, for so long; then the node is emptied.
    ByPolicy { timeout_ns: i64 },
}

impl How {
    /// Adds the parameters of the request that say so.
    pub(super) fn add_to(self, query: Query) -> Query {
        match self {
            Self::Now => query.with("drain", "now"),
            Self::ByPolicy { timeout_ns } => {
                query.with("drain", "policy").with("drainTimeout", format_duration(timeout_ns))
            }
        }
    }
}

/// A node that is being drained.
struct Draining {
    /// As the user called it.
    name: String,
    id: String,
    /// Tasks that were left when it was last looked at.
    left: Option<usize>,
}

impl Drain {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.check.version.is_some() && self.nodes.len() > 1 {
            bail!("--check-version belongs to the plan of one node: drain one at a time");
        }
        self.check.check(context).await?;
        // A misspelt name drains no other node.
        let how = if self.now { How::Now } else { How::ByPolicy { timeout_ns: self.timeout } };
        let drains = self.nodes.into_iter().map(|name| (Update::drain(name.clone(), how), name));
        let drains: Vec<(Update, String)> = drains.collect();
        for (drain, _) in &drains {
            drain.find(context).await?;
        }
        let mut nodes = Vec::new();
        for (drain, name) in drains {
            let id = drain.send(context).await?;
            if !self.wait {
                context.out.line(&name)?;
            }
            nodes.push(Draining { name, id, left: None });
        }
        if !self.wait {
            return Ok(());
        }
        let mut outage_since: Option<Instant> = None;
        loop {
            match look(context, &mut nodes).await? {
                Ok(()) => outage_since = None,
                Err(error) => {
                    let since = *outage_since.get_or_insert_with(Instant::now);
                    if !error.is_transient() || since.elapsed() >= OUTAGE_MAX {
                        return Err(error.into());
                    }
                }
            }
            if nodes.iter().all(|node| node.left == Some(0)) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
}

/// Counts what is left on each node, and says what has changed.
///
/// # Errors
/// Somebody took the drain of a node back.
async fn look(context: &mut Context, nodes: &mut [Draining]) -> anyhow::Result<Result<(), ClientError>> {
    for node in nodes {
        let seen = match Seen::of(&context.client, &node.id).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        if seen.availability != Availability::Drain {
            return Err(taken_back(&node.name, seen.availability).into());
        }
        if node.left != Some(seen.left) {
            context.out.line(&format!("{}: {}", node.name, seen.text()))?;
        }
        node.left = Some(seen.left);
    }
    Ok(Ok(()))
}

/// A node and what is left on it.
struct Seen {
    availability: Availability,
    /// Containers that there may still be of the cluster's tasks.
    left: usize,
    /// What was told to stop on a node that is down, and so cannot say that it has. Nobody waits for it: what should run
    /// does so elsewhere.
    unseen: usize,
}

impl Seen {
    async fn of(client: &Client, node: &str) -> Result<Self, ClientError> {
        let query = Query::new().with_some("filters", filters::to_json(&[("node".to_owned(), node.to_owned())]));
        let tasks: Vec<TaskView> = client.get("/tasks", query).await?;
        let node: NodeView = client.get(&format!("/nodes/{}", segment(node)), Query::new()).await?;
        let is_down = node.status.state == "down";
        let lives = |task: &&TaskView| {
            let mut states = TaskState::ALL.iter().filter(|state| !state.is_terminal());
            states.any(|state| state.as_str() == task.status.state)
        };
        let is_unseen = |task: &&TaskView| is_down && matches!(&*task.desired_state, "shutdown" | "remove");
        let (unseen, left): (Vec<&TaskView>, Vec<_>) = tasks.iter().filter(lives).partition(is_unseen);
        Ok(Self { availability: node.spec.availability, left: left.len(), unseen: unseen.len() })
    }

    fn text(&self) -> String {
        match (self.left, self.unseen) {
            (0, 0) => "drained".to_owned(),
            (0, _) => {
                "the node is down; its tasks are started elsewhere, and what still runs on it nobody can see".to_owned()
            }
            (1, _) => "1 task left".to_owned(),
            (left, _) => format!("{left} tasks left"),
        }
    }
}

fn taken_back(node: &str, availability: Availability) -> Hinted {
    let now = if availability == Availability::Active { "active again" } else { "paused now" };
    Hinted {
        message: format!("{node} is {now}: somebody took its drain back"),
        hint: format!("The tasks that are left stay on it. Drain it again: swarmctl node drain {node}"),
    }
}
