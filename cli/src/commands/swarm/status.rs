//! `swarm status`

use swarm_docker_api::view::{ManagerView, ManagersView, ReachView};

use crate::{
    client::{ClientError, Query},
    clock,
    context::Context,
    error::Exit,
    format::{Columns, Row, render, row},
    units::{capitalise, format_bytes, human_duration, natural_cmp},
};

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Hostname}}\t{{.Addr}}\t{{.Role}}\t{{.Reachability}}\t{{.Applied}}\t{{.Lag}}\t{{.LastContact}}\t{{.CertExpires}}",
    titles: &[
        ("ID", "ID"),
        ("Hostname", "HOSTNAME"),
        ("Addr", "ADDRESS"),
        ("Role", "ROLE"),
        ("Reachability", "REACHABILITY"),
        ("Applied", "APPLIED"),
        ("Lag", "LAG"),
        ("LastContact", "LAST CONTACT"),
        ("CertExpires", "CERTIFICATE EXPIRES"),
        ("SnapshotIndex", "SNAPSHOT"),
        ("SnapshotSize", "SNAPSHOT SIZE"),
        ("SnapshotAge", "SNAPSHOT AGE"),
        ("DiskFree", "DISK FREE"),
        ("ClockSkew", "CLOCK SKEW"),
        ("FeatureLevel", "FEATURE LEVEL"),
    ],
};

/// The exit code without a leader, with an error, or with a manager that must not be counted on: what watches the swarm
/// need not read the page.
const IN_TROUBLE: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm status
  swarmctl swarm status --format '{{.Hostname}} {{.Role}} {{.Lag}}'
  swarmctl swarm status --format 'table {{.Hostname}}\t{{.SnapshotIndex}}\t{{.SnapshotSize}}\t{{.DiskFree}}\t{{.ClockSkew}}'
  swarmctl swarm status --format json

Without --format it also asks each node whether it reaches the data ports of the others.

Exit codes: 0 a manager leads and nothing is wrong, 1 none does, or there is an error, or one has stopped or has something
else than the others, or swarmd does not answer.";

/// Show the managers: who leads, how far each is, what to worry about
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// How to print the managers: 'table', 'table TEMPLATE', 'json', or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Status {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut view: ManagersView = context.client.get("/swarmd/managers", Query::new()).await?;
        view.managers.sort_by(|a, b| natural_cmp(&a.hostname, &b.hostname).then_with(|| a.id.cmp(&b.id)));
        let rows = view.managers.iter().map(manager_row).collect();
        let managers = render(&COLUMNS, rows, self.format.as_deref(), false)?;
        if self.format.is_some() {
            context.out.print(&managers)?;
        } else {
            let data_ports = match leader(&view) {
                Some(_) => data_ports(context.client.get("/swarmd/reach", Query::new()).await, &mut view),
                None => "not probed: no manager leads".to_owned(),
            };
            context.out.print(&page(&view, &data_ports, &managers))?;
        }
        if is_well(&view) { Ok(()) } else { Err(Exit(IN_TROUBLE).into()) }
    }
}

fn is_well(view: &ManagersView) -> bool {
    leader(view).is_some() && view.errors.is_empty() && view.managers.iter().all(|manager| manager.problem.is_empty())
}

fn leader(view: &ManagersView) -> Option<&ManagerView> {
    view.managers.iter().find(|manager| manager.role == "leader")
}

/// A line about how far nodes reach each other's data ports. Faults are added to the errors and warnings.
fn data_ports(reach: Result<ReachView, ClientError>, view: &mut ManagersView) -> String {
    let reach = match reach {
        Ok(reach) => reach,
        Err(error) => return format!("not probed: {error}"),
    };
    view.errors.extend(reach.unreached.iter().map(|pair| {
        let port = pair.addr.rsplit(':').next().unwrap_or_default();
        format!(
            "{} does not reach the data port of {} at {}: {}; let {port}/tcp pass from every node to every node (row \
             7946/tcp of \"Ports\" in docs/operations.md)",
            pair.from, pair.to, pair.addr, pair.reason
        )
    }));
    let silent = reach.silent.iter();
    view.warnings
        .extend(silent.map(|silent| format!("node {} did not probe data ports: {}", silent.node, silent.reason)));
    match reach.reason.as_str() {
        "" => {
            let reached = reach.probed.saturating_sub(reach.unreached.len() as u64);
            format!("{reached} of {} pairs of nodes reach each other, {} were probed", reach.pairs, reach.probed)
        }
        reason => format!("not probed: {reason}"),
    }
}

fn page(view: &ManagersView, data_ports: &str, managers: &str) -> String {
    let leader = leader(view).map_or("none".to_owned(), |manager| format!("{} ({})", manager.hostname, manager.addr));
    let snapshot = match view.snapshot_index {
        0 => "none yet".to_owned(),
        index => {
            let size = view.snapshot_bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
            let age = view.snapshot_age_ms.map(|ms| format!(", {} old", age(ms))).unwrap_or_default();
            format!("up to entry {index}{size}{age}")
        }
    };
    let mut text = format!(
        "Leader:    {leader}\nTerm:      {}\nFeatures:  level {}\nLog:       entry {}, applied up to {}\nSnapshot:  {snapshot}\nData port: {data_ports}\n\n{managers}",
        view.term, view.feature_level, view.last_log_index, view.applied_index
    );
    if !view.errors.is_empty() || !view.warnings.is_empty() {
        text.push('\n');
    }
    for error in &view.errors {
        text.push_str(&format!("Error: {error}\n"));
    }
    for warning in &view.warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    text
}

fn manager_row(manager: &ManagerView) -> Row {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let left_ns = manager.cert_expires_at.0.since_ns(clock::now());
    let expires = if left_ns > 0 { format!("in {}", human_duration(left_ns)) } else { "expired".to_owned() };
    row([
        ("ID", manager.id.clone()),
        ("Hostname", manager.hostname.clone()),
        ("Addr", manager.addr.clone()),
        ("Role", capitalise(&manager.role)),
        ("Reachability", capitalise(&manager.reachability)),
        ("Applied", number(manager.applied_index)),
        ("Lag", number(manager.lag_entries)),
        ("LastContact", manager.last_contact_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"))),
        ("CertExpires", expires),
        ("SnapshotIndex", number(manager.snapshot_index)),
        ("SnapshotSize", manager.snapshot_bytes.map_or("-".to_owned(), size)),
        ("SnapshotAge", manager.snapshot_age_ms.map_or("-".to_owned(), age)),
        ("DiskFree", manager.disk_free_bytes.map_or("-".to_owned(), size)),
        ("FeatureLevel", number(manager.feature_level.map(u64::from))),
        ("ClockSkew", manager.clock_skew_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"))),
    ])
}

fn size(bytes: u64) -> String {
    format_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn age(ms: u64) -> String {
    human_duration(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests;
