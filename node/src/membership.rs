//! `swarm init`, `swarm join`, `swarm leave`: how a node comes into a cluster and out of it (swarm-behaviour §8.5).
//!
//! Each either happens as a whole or leaves nothing: `swarm.json` is written when all else is done, and goes first.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use swarm_docker_api::{
    ApiError, LOCKED, NOT_A_MANAGER,
    view::{InitRequest, JoinRequest},
};
use swarm_manager::{Init, InitError, Start, StepDownError};
use swarm_model::{Availability, NodeRole};
use swarm_wire::{JoinToken, NodeIdentity};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::{
    address,
    certificate::{self, Issued},
    config::LISTEN_ADDR_DEFAULT,
    data_plane, net,
    node::{Member, MemberState, Node, Swarm, listen, listen_as_before},
    state_dir::Membership,
};

/// How long `swarm join` waits for a manager to take the node before it goes on in the background.
const JOIN_WAIT: Duration = Duration::from_secs(20);

/// How long a manager that leaves waits to be a worker: an election, two changes of the managers, a certificate.
const STEP_DOWN_WAIT: Duration = Duration::from_secs(30);
/// How often it looks.
const STEP_DOWN_POLL: Duration = Duration::from_millis(20);

const JOIN_TIMED_OUT: &str = "Timeout was reached before node joined. The attempt to join the swarm will continue in the \
                              background. Use the \"docker info\" command to see the current swarm status of your node.";
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Removing \
                            the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
const HAS_MAJORITY: &str = "the managers of this swarm are a majority and lead it: nothing has to be forced. Take managers \
                            out with \"node demote\", or stop them first if this one is to go on without them";
const NOT_A_MEMBER: &str = "This node is not part of a swarm";

mod restore;

impl Node {
    /// Makes a cluster with this node as its manager and returns the node's id.
    ///
    /// # Errors
    /// 503 when the node is in a cluster already, 400 for a bad request, 501 for what is not possible yet.
    pub(crate) async fn init(self: Arc<Self>, request: InitRequest) -> Result<String, ApiError> {
        let _changing = self.change().await;
        swarm_manager::api::check_cluster(&request.spec)?;
        let overlay = request.overlay();
        if request.force_new_cluster {
            if overlay.says_something() || !request.data_path_addr.is_empty() {
                return Err(ApiError::bad_request(
                    "address pools, subnet size, encryption of networks, data path address and port were chosen when the \
                     swarm was made: leave them out",
                ));
            }
            return self.force_new_cluster().await;
        }
        self.must_be_out()?;
        let availability = read_availability(&request.availability)?;
        let data_path_addr = data_path_addr(&request.data_path_addr)?;
        let mut spec = request.spec;
        spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        let (create, identity) = Init::new(spec, overlay, availability).map_err(|e| match e {
            InitError::Spec(e) => ApiError::bad_request(e.to_string()),
            other => ApiError::internal(other.to_string()),
        })?;
        let node = identity.node();
        // The port before anything is written: it may be taken.
        let (listen_addr, advertise_addr) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        let port = listen(&listen_addr.to_string()).await.map_err(bad_request)?;
        let membership = Membership {
            listen_addr: listen_addr.to_string(),
            advertise_addr: advertise_addr.to_string(),
            data_path_addr,
            ..Membership::default()
        };
        let membership = membership.at_port(bound_port(&port)?);
        let membership = Membership { managers: vec![membership.advertise_addr.clone()], ..membership };
        self.state().wipe().map_err(internal)?;
        self.state().save_identity(&identity).map_err(internal)?;
        let begin = Some((port, Start::Create(Box::new(create))));
        let started = Member::start(&self, membership.clone(), identity, begin, false).await;
        let member = self.settle(started, &membership).await?;
        member.wait_accepted(JOIN_WAIT).await;
        Ok(node.to_string())
    }

    /// Goes on with this manager alone, after the majority of the managers was lost for good. Workers and tasks stay.
    async fn force_new_cluster(self: &Arc<Self>) -> Result<String, ApiError> {
        let swarm = self.swarm();
        let member = match &*swarm {
            Swarm::In(member) => member,
            Swarm::Locked(_) => return Err(ApiError::unavailable(LOCKED)),
            Swarm::Out => return Err(ApiError::unavailable(NOT_A_MEMBER)),
        };
        if let Some(removed) = member.removed() {
            return Err(ApiError::unavailable(removed));
        }
        let manager = member.manager().ok_or_else(|| ApiError::unavailable(NOT_A_MANAGER))?;
        if manager.has_majority().await {
            return Err(ApiError::unavailable(HAS_MAJORITY));
        }
        let (membership, identity) = (member.membership(), NodeIdentity::clone(&member.identity()));
        let membership = Membership { managers: vec![membership.advertise_addr.clone()], ..membership };
        member.shutdown().await;
        let started = async {
            let port = listen_as_before(&membership).await?;
            let begin = Some((port, Start::Recover { raft_id: membership.raft_id }));
            Member::start(self, membership.clone(), identity.clone(), begin, true).await
        };
        match started.await {
            Ok(member) => {
                self.state().save_membership(&membership).map_err(internal)?;
                self.set(Swarm::In(member));
                Ok(identity.node().to_string())
            }
            Err(e) => {
                // The next start finds it as it is on the disk: still one of many, or alone already.
                let reason = format!("this manager could not be made the only one: {e:#}");
                self.failure().send_replace(Some(reason.clone()));
                Err(ApiError::internal(reason))
            }
        }
    }

    /// Joins a cluster by token.
    ///
    /// # Errors
    /// 503 when the node is in a cluster already or no manager answers, 400 for a bad request or token.
    pub(crate) async fn join(self: Arc<Self>, request: JoinRequest) -> Result<(), ApiError> {
        let _changing = self.change().await;
        self.must_be_out()?;
        let token = JoinToken::parse(request.join_token.expose()).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let availability = read_availability(&request.availability)?;
        let managers = request.remote_addrs.iter().map(|addr| address::with_port(addr)).collect::<Result<Vec<_>, _>>();
        let managers = managers.map_err(bad_request)?;
        let (listen_addr, advertise_addr) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        // Whether the port can be had, and which one, before anything is asked for, although only a manager needs it.
        let port = listen(&listen_addr.to_string()).await.map_err(bad_request).and_then(|port| bound_port(&port));
        let membership = Membership {
            listen_addr: listen_addr.to_string(),
            advertise_addr: advertise_addr.to_string(),
            data_path_addr: data_path_addr(&request.data_path_addr)?,
            managers: managers.clone(),
            ..Membership::default()
        };
        let as_manager = port.map(|bound| membership.clone().at_port(bound));
        self.state().wipe().map_err(internal)?;
        // Without a port there is no address, and without an address no manager is admitted.
        let advertise_addr = as_manager.as_ref().map(|m| m.advertise_addr.as_str()).unwrap_or_default();
        let issued = first_certificate(&managers, &token, availability, advertise_addr).await;
        let Issued { identity, raft_id } = issued.map_err(|mut refused| {
            if let (400, Err(port)) = (refused.status, &as_manager) {
                refused.message = format!("{}; {}", refused.message, port.message);
            }
            refused
        })?;
        let (membership, begin) = match (identity.role(), raft_id) {
            (NodeRole::Worker, _) => (membership, None),
            (NodeRole::Manager, Some(raft_id)) => {
                let membership = Membership { raft_id: Some(raft_id), ..as_manager? };
                let port = listen(&membership.listen_addr).await.map_err(bad_request)?;
                (membership, Some((port, Start::Join { raft_id })))
            }
            (NodeRole::Manager, None) => {
                return Err(ApiError::unavailable("the manager gave this node no Raft id: upgrade the managers first"));
            }
        };
        self.state().save_identity(&identity).map_err(internal)?;
        let deadline = Instant::now() + JOIN_WAIT;
        let started = Member::start(&self, membership.clone(), identity, begin, false).await;
        let member = self.settle(started, &membership).await?;
        match member.wait_accepted(JOIN_WAIT).await {
            MemberState::Active(_) if member.wait_voter(deadline).await => Ok(()),
            state @ (MemberState::Active(_) | MemberState::Pending(_)) => {
                tracing::warn!("joining goes on in the background: {}", still_joining(&state));
                let managers = match member.is_manager() {
                    true => format!(
                        " The other managers reach this node at {}: if that is not its address, leave and join with \
                         another --advertise-addr.",
                        member.membership().advertise_addr
                    ),
                    false => String::new(),
                };
                Err(ApiError::unavailable(format!("{JOIN_TIMED_OUT}{managers}")))
            }
            MemberState::Error(reason) => Err(ApiError::unavailable(reason)),
        }
    }

    /// Ends the processes beside this one, with what they made.
    pub(crate) async fn stop_sides(&self) {
        let (data, net) = (self.data_place(), self.net_place());
        tokio::join!(data_plane::stop(&data), net::stop(&net));
    }

    /// Leaves the cluster and removes this node's containers. The last manager takes the cluster with it.
    ///
    /// # Errors
    /// 503 when the node is in no cluster, is a manager and `force` is not given, or has containers that do not go
    /// away; with `force` the last is only said in the log.
    pub(crate) async fn leave(self: Arc<Self>, force: bool) -> Result<(), ApiError> {
        if !force {
            self.step_down().await?;
        }
        let _changing = self.change().await;
        let swarm = self.swarm();
        let member = match &*swarm {
            Swarm::In(member) => member,
            Swarm::Locked(peer) => return self.leave_locked(peer, force).await,
            Swarm::Out => return Err(ApiError::unavailable(NOT_A_MEMBER)),
        };
        let left = member.leave().await;
        if let Err(e) = &left {
            tracing::warn!("leaving the swarm: {e}");
        }
        self.stop_sides().await;
        self.state().wipe().map_err(internal)?;
        self.set(Swarm::Out);
        tracing::info!("this node left the swarm");
        match left {
            Err(e) if !force => Err(ApiError::unavailable(format!("the node left the swarm, but {e}"))),
            _ => Ok(()),
        }
    }

    /// Makes a worker of a manager, if the others can do without it.
    async fn step_down(&self) -> Result<(), ApiError> {
        let Swarm::In(member) = &*self.swarm() else { return Ok(()) };
        // One that was removed is nobody's manager any more: there is nothing to be handed over.
        if member.removed().is_some() {
            return Ok(());
        }
        let Some(manager) = member.manager() else { return Ok(()) };
        manager.step_down().await.map_err(|e| {
            ApiError::unavailable(match e {
                StepDownError::Last => LAST_MANAGER.to_owned(),
                other => format!("{other}. Use `--force` to leave all the same."),
            })
        })?;
        let deadline = Instant::now() + STEP_DOWN_WAIT;
        while matches!(&*self.swarm(), Swarm::In(member) if member.is_manager()) {
            if Instant::now() > deadline {
                return Err(ApiError::unavailable(
                    "the node is to be a worker before it leaves, which takes longer than expected: look at \"node \
                     ls\", then try again. Use `--force` to leave all the same.",
                ));
            }
            sleep(STEP_DOWN_POLL).await;
        }
        Ok(())
    }

    /// Makes the node a member if it started, and forgets everything if it did not.
    async fn settle(
        &self,
        started: anyhow::Result<Arc<Member>>,
        membership: &Membership,
    ) -> Result<Arc<Member>, ApiError> {
        let kept = match started {
            Ok(member) => {
                match self.state().save_membership(&Membership { managers: member.managers(), ..membership.clone() }) {
                    Ok(()) => Ok(member),
                    Err(e) => {
                        member.shutdown().await;
                        Err(e)
                    }
                }
            }
            Err(e) => Err(e),
        };
        match kept {
            Ok(member) => {
                self.set(Swarm::In(member.clone()));
                Ok(member)
            }
            Err(e) => {
                if let Err(e) = self.state().wipe() {
                    tracing::warn!("cleaning up after a failed attempt: {e:#}");
                }
                Err(internal(e))
            }
        }
    }

    /// Where to listen and what to tell others: as the request says, else as the settings say, else what there is.
    fn addresses(&self, listen_addr: &str, advertise_addr: &str) -> Result<(SocketAddr, SocketAddr), ApiError> {
        // Docker's client sends the default when it was told nothing.
        let listen = match listen_addr.trim() {
            "" | LISTEN_ADDR_DEFAULT => self.config().listen_addr,
            text => address::parse_listen(text).map_err(|e| ApiError::bad_request(format!("listen address: {e}")))?,
        };
        let wanted = Some(advertise_addr).filter(|a| !a.trim().is_empty()).or(self.config().advertise_addr.as_deref());
        let interfaces = address::interfaces().map_err(internal)?;
        Ok((listen, address::advertise(wanted, listen, &interfaces).map_err(bad_request)?))
    }
}

/// Why a node that joins is not there yet, as far as it knows.
fn still_joining(state: &MemberState) -> &str {
    match state {
        MemberState::Active(reason) | MemberState::Pending(reason) | MemberState::Error(reason)
            if !reason.is_empty() =>
        {
            reason
        }
        MemberState::Active(_) => {
            "the managers have taken this node, but it does not vote yet: it has to catch up with them"
        }
        MemberState::Pending(_) | MemberState::Error(_) => {
            "no manager has taken this node yet, and none has refused it"
        }
    }
}

fn bound_port(port: &TcpListener) -> Result<u16, ApiError> {
    port.local_addr().map(|addr| addr.port()).map_err(|e| ApiError::internal(e.to_string()))
}

/// A certificate from the first manager that gives one.
async fn first_certificate(
    managers: &[String],
    token: &JoinToken,
    availability: Availability,
    advertise_addr: &str,
) -> Result<Issued, ApiError> {
    let mut problems: Vec<ApiError> = Vec::new();
    for addr in managers {
        match certificate::first(addr, token, availability, advertise_addr).await {
            Ok(issued) => return Ok(issued),
            // What a manager says counts, whatever the others would say.
            Err(e) if e.status < 500 || e.status == 501 => return Err(e),
            Err(e) => problems.push(e),
        }
    }
    if problems.is_empty() {
        return Err(ApiError::bad_request("the address of at least one manager is needed to join a swarm"));
    }
    let texts: Vec<_> = problems.into_iter().map(|e| e.message).collect();
    Err(ApiError::unavailable(texts.join("; ")))
}

/// The address of overlay traffic; empty if none is given.
fn data_path_addr(wanted: &str) -> Result<String, ApiError> {
    if wanted.trim().is_empty() {
        return Ok(String::new());
    }
    let ip = address::data_path(wanted.trim(), &address::interfaces().map_err(internal)?);
    ip.map(|ip| ip.to_string()).map_err(|e| ApiError::bad_request(format!("data path address: {e:#}")))
}

fn read_availability(text: &str) -> Result<Availability, ApiError> {
    match text {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => {
            Err(ApiError::bad_request(format!("invalid Availability: {other:?} (possible are active, pause, drain)")))
        }
    }
}

fn bad_request(error: anyhow::Error) -> ApiError {
    ApiError::bad_request(format!("{error:#}"))
}

fn internal(error: anyhow::Error) -> ApiError {
    ApiError::internal(format!("{error:#}"))
}

#[cfg(test)]
mod tests;
