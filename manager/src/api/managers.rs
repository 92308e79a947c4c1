//! What Docker's API has no word for: how the managers are, and who leads.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract;
use swarm_consensus::{Asked, Member, Status, Survey};
use swarm_core::State;
use swarm_docker_api::view::{ManagerView, ManagersView, Time};
use swarm_model::{Cluster, Node, NodeRole, NodeState, Timestamp, format_bytes};

use super::{
    Plane,
    call::Call,
    reply::{self, Reply},
    resolve,
};

/// A manager that lacks more entries than this has trouble to keep up.
const LAG_WORTH_A_WARNING: u64 = 10_000;
/// A certificate with less of its life left, in hundredths, should have been renewed long ago.
const CERT_LEFT_PERCENT_MIN: i64 = 10;

/// A clock that differs by more is worth a warning (design §4).
const SKEW_MS_MAX: i64 = 1_000;
/// A disk with less room is nearly full, in hundredths, ...
const DISK_FREE_PERCENT_MIN: u64 = 10;
/// ... unless that is still enough for a log and its snapshots.
const DISK_FREE_BYTES_MIN: u64 = 2 << 30;
/// Bytes in a mebibyte.
const MIB: u64 = 1 << 20;
/// The ways out when too many managers are silent.
const NO_MAJORITY: &str = "bring those machines back (one that is locked waits for `swarm unlock` there), or, only if they \
                           are lost for good, `swarm init --force-new-cluster` on one that is left, or `swarm restore` \
                           a backup";

/// `GET /swarmd/managers`
pub(super) async fn status<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    // Where there is no barrier to pass, this page is wanted most.
    let mut survey = plane.survey().await;
    let (mut went_back, mut problems) = (set_back(&survey, &survey), problems(&survey, &survey));
    if !went_back.is_empty() || !problems.is_empty() {
        // The leader and they were asked at the same time: it may have heard from them what came in between.
        let again = plane.survey().await;
        went_back = set_back(&survey, &again);
        problems = self::problems(&survey, &again);
        survey = again;
    }
    let state = plane.state();
    let cluster = resolve::cluster(&state)?;
    let mut view = view(&survey, &problems, &state, cluster, plane.now());
    view.warnings.extend(went_back);
    reply::json(&view)
}

/// Managers that have less of the log than the leader had confirmed by them before.
fn set_back(before: &Survey, now: &Survey) -> Vec<String> {
    let members = before.status.members.iter();
    let lacking = members.filter_map(|member| {
        let (has, confirmed) = (now.answers.get(&member.raft_id)?.status.last_log_index, member.matched_index);
        (has < confirmed).then_some((member, has.unwrap_or_default(), confirmed.unwrap_or_default()))
    });
    let warning = |(member, has, confirmed): (&Member, u64, u64)| {
        format!(
            "the manager at {} has the log up to entry {has} and had confirmed entry {confirmed}: its state folder is an \
             older copy, or lost what was written; `node demote` it, move its state folder away and join it again",
            member.addr
        )
    };
    lacking.map(warning).collect()
}

/// Managers that must not be counted on, by Raft id: those that stopped, and those that have applied what the leader has
/// not committed.
fn problems(before: &Survey, now: &Survey) -> BTreeMap<u64, String> {
    let committed = now.status.committed_index.filter(|_| now.status.leads());
    let problem = |member: &Member| {
        let own = &now.answers.get(&member.raft_id)?.status;
        if let Some(reason) = &own.stopped {
            return Some(format!("has stopped: {reason}"));
        }
        if let Some(text) = &own.undecided {
            return Some(format!("finds no majority that agrees: {text}"));
        }
        let applied = before.answers.get(&member.raft_id)?.status.applied_index?;
        let committed = committed.filter(|committed| *committed < applied)?;
        Some(format!(
            "has applied all up to entry {applied}, and the leader has no more than {committed} committed: one of the two \
             went back to an older copy of its state folder, or lost what was written. Find out which one before you \
             change anything: `swarmctl --consistency stale service ls` on each shows what it has"
        ))
    };
    now.status.members.iter().filter_map(|member| Some((member.raft_id, problem(member)?))).collect()
}

/// `POST /swarmd/transfer`: makes another manager the leader, `?node=` or the one with most of the log.
pub(super) async fn transfer<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let to = match call.param("node").filter(|node| !node.is_empty()) {
        None => None,
        Some(node) => {
            let state = plane.read().await?;
            resolve::cluster(&state)?;
            // A worker has none, and no manager has this one.
            Some(resolve::node(&state, node)?.raft_id.unwrap_or_default())
        }
    };
    plane.hand_over(to).await?;
    Ok(reply::empty())
}

fn view(
    survey: &Survey,
    problems: &BTreeMap<u64, String>,
    state: &State,
    cluster: &Cluster,
    now: Timestamp,
) -> ManagersView {
    let status = &survey.status;
    let known = status.leads();
    let mut warnings = Vec::new();
    if status.leader.is_none() {
        warnings.push(
            "no manager leads: changes wait until most managers can talk to each other, and containers run on"
                .to_owned(),
        );
        warnings.extend(survey.silent().iter().map(|member| format!("the manager at {} does not answer", member.addr)));
        if !survey.has_majority() {
            warnings.push(NO_MAJORITY.to_owned());
        }
    }
    let node_of = |member: &Member| state.nodes().find(|node| node.raft_id == Some(member.raft_id));
    let mut managers: Vec<ManagerView> = status
        .members
        .iter()
        .map(|member| {
            let node = node_of(member).map(|node| &**node);
            let problem = problems.get(&member.raft_id);
            manager(status, member, node, survey.answers.get(&member.raft_id), problem, known)
        })
        .collect();
    // Managers that Raft has not taken yet.
    let joining = state.nodes().filter(|node| node.role == NodeRole::Manager);
    for node in joining.filter(|node| status.members.iter().all(|member| Some(member.raft_id) != node.raft_id)) {
        managers.push(ManagerView {
            id: node.id.to_string(),
            hostname: node.hostname().to_owned(),
            addr: node.manager_addr.clone().unwrap_or_default(),
            role: "joining".into(),
            reachability: "unknown".into(),
            cert_expires_at: node.cert_expires_at.into(),
            ..ManagerView::default()
        });
    }
    if known {
        warnings.extend(lost(status));
    }
    warnings.extend(same_addresses(&managers));
    warnings.extend(rotation(state, cluster));
    warnings.extend(held_back(&managers, state.feature_level()));
    warnings.extend(clocks(survey, state.time()));
    for manager in &managers {
        let name = format!("{} ({})", manager.hostname, manager.addr);
        if !manager.problem.is_empty() {
            warnings.push(format!("the manager {name} {}", manager.problem));
        }
        if manager.lag_entries.is_some_and(|lag| lag > LAG_WORTH_A_WARNING) {
            warnings.push(format!("{name} lacks {} entries of the log", manager.lag_entries.unwrap_or_default()));
        }
        warnings.extend(trouble(manager, &name));
        let left_ns = manager.cert_expires_at.0.since_ns(now);
        if left_ns < cluster.spec.ca_config.node_cert_expiry_ns / 100 * CERT_LEFT_PERCENT_MIN {
            warnings.push(format!("the certificate of {name} is about to expire and was not renewed: see its log"));
        }
    }
    ManagersView {
        term: status.term,
        feature_level: state.feature_level(),
        leader: managers.iter().find(|manager| manager.role == "leader").map(|m| m.id.clone()).unwrap_or_default(),
        last_log_index: status.last_log_index.unwrap_or_default(),
        applied_index: status.applied_index.unwrap_or_default(),
        snapshot_index: status.snapshot_index.unwrap_or_default(),
        snapshot_bytes: status.local.as_ref().and_then(|local| local.snapshot_bytes),
        snapshot_age_ms: status.local.as_ref().and_then(|local| local.snapshot_age_ms),
        managers,
        errors: twins(survey).into_iter().chain(noted(state)).collect(),
        warnings,
    }
}

/// What the leader noted of nodes that have a session.
fn noted(state: &State) -> Vec<String> {
    let noted = state.nodes().filter(|node| node.status.state == NodeState::Ready && !node.status.message.is_empty());
    noted.map(|node| format!("node {} ({}): {}", node.hostname(), node.id, node.status.message)).collect()
}

fn manager(
    status: &Status,
    member: &Member,
    node: Option<&Node>,
    asked: Option<&Asked>,
    problem: Option<&String>,
    known: bool,
) -> ManagerView {
    let role = match member.voter {
        _ if status.leader == Some(member.raft_id) => "leader",
        true => "voter",
        false => "learner",
    };
    let has_stopped = asked.is_some_and(|asked| asked.status.stopped.is_some());
    let reachability = match (known, member.is_silent()) {
        _ if has_stopped => "stopped",
        _ if role == "leader" => "reachable",
        (false, _) if asked.is_some() => "reachable",
        (false, _) => "unreachable",
        (true, false) => "reachable",
        (true, true) => "unreachable",
    };
    let end = status.last_log_index.unwrap_or_default();
    let local = asked.and_then(|asked| asked.status.local.as_ref());
    ManagerView {
        id: node.map(|node| node.id.to_string()).unwrap_or_default(),
        hostname: node.map(|node| node.hostname().to_owned()).unwrap_or_default(),
        addr: member.addr.clone(),
        role: role.into(),
        reachability: reachability.into(),
        problem: problem.cloned().unwrap_or_default(),
        matched_index: member.matched_index,
        // What it lacks is not known of one that has something else.
        lag_entries: member.matched_index.filter(|_| problem.is_none()).map(|matched| end.saturating_sub(matched)),
        last_contact_ms: member.last_contact_ms,
        applied_index: asked.and_then(|asked| asked.status.applied_index),
        snapshot_index: asked.and_then(|asked| asked.status.snapshot_index),
        snapshot_bytes: local.and_then(|local| local.snapshot_bytes),
        snapshot_age_ms: local.and_then(|local| local.snapshot_age_ms),
        disk_free_bytes: local.and_then(|local| local.disk_free_bytes),
        disk_bytes: local.and_then(|local| local.disk_bytes),
        feature_level: asked.map(|asked| asked.status.feature_level),
        clock_skew_ms: local.and(asked).map(|asked| asked.clock_skew_ms),
        cert_expires_at: node.map(|node| node.cert_expires_at.into()).unwrap_or_default(),
    }
}

/// Managers that are to be reached at one address: all but one of them cannot be.
fn same_addresses(managers: &[ManagerView]) -> Vec<String> {
    let mut at = BTreeMap::<&str, Vec<&str>>::new();
    for manager in managers.iter().filter(|manager| !manager.addr.is_empty()) {
        at.entry(&manager.addr).or_default().push(if manager.hostname.is_empty() {
            &manager.id
        } else {
            &manager.hostname
        });
    }
    at.retain(|_, names| names.len() > 1);
    let warning = |(addr, names): (&str, Vec<&str>)| {
        format!(
            "the managers {} all say that they are reached at {addr}, where one of them answers: `node rm --force` what is \
             gone; of those that run, `swarm leave` on each whose address it is not, and join again with another \
             --advertise-addr",
            names.join(" and ")
        )
    };
    at.into_iter().map(warning).collect()
}

/// Managers of which two machines have the state folder, as each manager has noticed.
fn twins(survey: &Survey) -> BTreeSet<String> {
    let locals = survey.answers.values().filter_map(|asked| asked.status.local.as_ref());
    locals.flat_map(|local| local.twins.iter().cloned()).collect()
}

/// Who keeps the swarm from the newest feature level that one of its managers knows.
fn held_back(managers: &[ManagerView], level: u16) -> Option<String> {
    let newest = managers.iter().filter_map(|manager| manager.feature_level).max().filter(|newest| *newest > level)?;
    let behind = managers.iter().filter(|manager| manager.feature_level.is_none_or(|knows| knows < newest));
    let behind: Vec<String> = behind
        .map(|manager| {
            let knows =
                manager.feature_level.map_or("does not answer".to_owned(), |knows| format!("knows level {knows}"));
            format!("{} ({}, {knows})", manager.hostname, manager.addr)
        })
        .collect();
    // With nobody behind the leader is about to raise it.
    (!behind.is_empty()).then(|| {
        format!(
            "the swarm stays at feature level {level}, {newest} is possible: upgrade swarmd on {}, or bring it back",
            behind.join(", ")
        )
    })
}

/// What holds up the change to another root CA.
fn rotation(state: &State, cluster: &Cluster) -> Option<String> {
    let root = &cluster.root_rotation.as_ref()?.root;
    let behind: Vec<&str> =
        state.nodes().filter(|node| node.cert_issuer() != root.key_id).map(|node| node.hostname()).collect();
    Some(format!(
        "the root CA is being replaced, which waits for {} of {} nodes: {}; bring them back, or `node rm --force` what is \
         lost",
        behind.len(),
        state.nodes().count(),
        behind.join(", ")
    ))
}

/// Clocks that differ from that of the manager that asks, and a log that is ahead of all of them. `log` is the newest time
/// in it.
fn clocks(survey: &Survey, log: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for member in &survey.status.members {
        let Some(asked) = survey.answers.get(&member.raft_id) else { continue };
        let Some(local) = &asked.status.local else { continue };
        if asked.clock_skew_ms.abs() > SKEW_MS_MAX {
            let own = local.clock.plus_ns(-asked.clock_skew_ms.saturating_mul(1_000_000));
            warnings.push(format!(
                "the clock of the manager at {} says {}, and this manager's says {}: synchronise them (NTP)",
                member.addr,
                seconds(local.clock),
                seconds(own)
            ));
        }
    }
    let clocks = survey.answers.values().filter_map(|asked| Some(asked.status.local.as_ref()?.clock));
    let clock = clocks.filter(|clock| !clock.is_zero()).max();
    if let Some(clock) = clock.filter(|clock| log.since_ns(*clock) / 1_000_000 > SKEW_MS_MAX) {
        warnings.push(format!(
            "the newest entry of the log is from {}, and the managers' clocks say {}: they are behind, or the clock of a \
             leader was ahead; the time of the swarm goes on from the log",
            seconds(log),
            seconds(clock)
        ));
    }
    warnings
}

/// A time for people.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp(at.0.div_euclid(1_000_000_000) * 1_000_000_000))
}

/// What is wrong with one manager's machine.
fn trouble(manager: &ManagerView, name: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if let (Some(free), Some(all)) = (manager.disk_free_bytes, manager.disk_bytes)
        && all > 0
        && free < (all / 100 * DISK_FREE_PERCENT_MIN).min(DISK_FREE_BYTES_MIN)
    {
        let free = format_bytes(i64::try_from(free / MIB * MIB).unwrap_or(i64::MAX));
        warnings.push(format!("the disk of {name} is nearly full ({free} free): a manager that cannot write stops"));
    }
    warnings
}

/// What the silence of managers means.
fn lost(status: &Status) -> Vec<String> {
    let voters: Vec<&Member> = status.members.iter().filter(|member| member.voter).collect();
    let answering = voters.iter().filter(|member| !member.is_silent()).count();
    let majority = voters.len() / 2 + 1;
    let mut warnings: Vec<String> = voters
        .iter()
        .filter(|member| member.is_silent())
        .map(|member| match member.last_contact_ms {
            Some(ms) => format!("the manager at {} has not answered for {} s", member.addr, ms / 1000),
            None => format!("the manager at {} has not answered since this leader was elected", member.addr),
        })
        .collect();
    let learners = status.members.iter().filter(|member| !member.voter && member.is_silent());
    warnings.extend(learners.map(|member| {
        format!(
            "the manager that joins does not answer at {}: if that is not its address, `swarm leave --force` there, `node \
             demote` and `node rm` here, and join with another --advertise-addr",
            member.addr
        )
    }));
    match voters.len() {
        1 => warnings.push("there is one manager: without it nothing can be changed; two more bear the loss of one".into()),
        count if answering <= majority && answering < count => warnings.push(format!(
            "{answering} of {count} managers answer, and {majority} have to: if one more is lost, nothing can be changed"
        )),
        count if count % 2 == 0 => {
            warnings.push(format!("{count} managers bear the loss of no more than {} do", count - 1));
        }
        _ => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_whose_log_went_back_is_named() {
        let survey = |confirmed: u64, has: u64| {
            let addr = "10.0.0.2:2377".to_owned();
            let (matched_index, last_contact_ms) = (Some(confirmed), Some(0));
            let matched_leader = None;
            let member = Member { raft_id: 2, addr, voter: true, matched_index, matched_leader, last_contact_ms };
            let status = Status { raft_id: 1, leader: Some(1), members: vec![member], ..Status::default() };
            let own = Status { raft_id: 2, last_log_index: Some(has), ..status.clone() };
            Survey { status, answers: [(2, Asked { status: own, clock_skew_ms: 0 })].into() }
        };
        let warnings = set_back(&survey(125, 104), &survey(125, 104));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("up to entry 104 and had confirmed entry 125"), "{warnings:?}");
        // It confirmed while the others were asked.
        assert_eq!(set_back(&survey(125, 124), &survey(130, 126)), [""; 0]);
    }

    #[test]
    fn managers_that_share_an_address_are_named() {
        let manager = |hostname: &str, addr: &str| ManagerView {
            hostname: hostname.into(),
            addr: addr.into(),
            ..ManagerView::default()
        };
        let (one, two, three) =
            (manager("one", "10.0.0.1:2377"), manager("two", "10.0.0.2:2377"), manager("three", ""));
        assert_eq!(same_addresses(&[one.clone(), two.clone(), three.clone(), three]), [""; 0]);
        let warnings = same_addresses(&[one.clone(), two, manager("other", "10.0.0.1:2377")]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("one and other all say that they are reached at 10.0.0.1:2377"), "{warnings:?}");
    }

    #[test]
    fn who_stopped_or_has_more_than_the_leader_is_named() {
        let survey = |committed: u64, applied: u64, stopped: Option<&str>| {
            let addr = "10.0.0.2:2377".to_owned();
            let (matched_index, last_contact_ms) = (Some(applied), Some(0));
            let matched_leader = None;
            let member = Member { raft_id: 2, addr, voter: true, matched_index, matched_leader, last_contact_ms };
            let committed_index = Some(committed);
            let status =
                Status { raft_id: 1, leader: Some(1), committed_index, members: vec![member], ..Status::default() };
            let stopped = stopped.map(str::to_owned);
            let own = Status { raft_id: 2, applied_index: Some(applied), stopped, ..status.clone() };
            Survey { status, answers: [(2, Asked { status: own, clock_skew_ms: 0 })].into() }
        };
        let ahead = survey(60, 100, None);
        let found = problems(&ahead, &ahead);
        assert!(found[&2].contains("applied all up to entry 100, and the leader has no more than 60"), "{found:?}");
        let shown = manager(&ahead.status, &ahead.status.members[0], None, ahead.answers.get(&2), found.get(&2), true);
        assert_eq!((shown.lag_entries, shown.problem.is_empty()), (None, false), "never a lag of nothing");
        // It was committed while they were asked.
        assert!(problems(&ahead, &survey(101, 101, None)).is_empty());
        let stopped = survey(60, 60, Some("it differs"));
        let found = problems(&stopped, &stopped);
        assert_eq!(found[&2], "has stopped: it differs");
        let shown =
            manager(&stopped.status, &stopped.status.members[0], None, stopped.answers.get(&2), found.get(&2), true);
        assert_eq!((shown.reachability.as_str(), shown.lag_entries), ("stopped", None));
    }

    #[test]
    fn who_holds_back_the_feature_level_is_named() {
        let manager = |name: &str, feature_level| ManagerView {
            hostname: name.to_owned(),
            addr: format!("{name}:2377"),
            feature_level,
            ..ManagerView::default()
        };
        let (new, old, away) = (manager("a", Some(2)), manager("b", Some(1)), manager("c", None));
        let warning = held_back(&[new.clone(), old.clone(), away], 1).expect("a warning");
        assert!(warning.contains("b (b:2377, knows level 1), c (c:2377, does not answer)"), "{warning}");
        assert!(!warning.contains("a (a:2377"), "{warning}");
        assert_eq!(held_back(&[old.clone(), old.clone()], 1), None);
        assert_eq!(held_back(&[new.clone(), new], 2), None);
    }
}
