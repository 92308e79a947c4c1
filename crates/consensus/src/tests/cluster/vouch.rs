//! Managers that lost what they had acknowledged.

use std::{fs, path::Path};

use futures_util::future::join_all;
use openraft::raft::VoteRequest;

use super::*;
use crate::{
    message::Candidacy,
    types::{LeaderId, Types, Vote},
};

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

impl Managers {
    /// Writes so many entries, and waits until this manager has acknowledged them to the leader.
    async fn write_to(&self, leader: u64, numbers: std::ops::Range<u128>, follower: u64) {
        for number in numbers {
            self.all[&leader].write(admit(number)).await.unwrap();
        }
        let leader = &self.all[&leader];
        let end = leader.status().last_log_index;
        let matched = |id| leader.status().members.iter().find(|member| member.raft_id == id)?.matched_index;
        wait_until(|| matched(follower) >= end).await;
    }

    /// Leaves this follower with an older copy of its folder, stopped. Returns its folder and where the newest copy is.
    async fn set_back(&mut self, leader: u64, follower: u64) -> (std::path::PathBuf, std::path::PathBuf) {
        let dir = self.options(follower).dir;
        let [old, new] = ["old", "new"].map(|name| self.folder.path().join(name));
        self.write_to(leader, 0..10, follower).await;
        self.kill(follower).await;
        copy(&dir, &old);
        self.restart(follower).await;
        self.write_to(leader, 10..30, follower).await;
        self.kill(follower).await;
        fs::rename(&dir, &new).unwrap();
        copy(&old, &dir);
        (dir, new)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_folder_is_refused_while_there_is_a_leader() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let follower = managers.follower(leader);
    let (dir, new) = managers.set_back(leader, follower).await;
    let options = managers.options(follower);
    let error = Consensus::open(options, Watcher::new()).await.err().expect("it is refused").to_string();
    assert!(error.contains("log.db is damaged"), "{error}");
    assert!(error.contains("had acknowledged") && error.contains(&addr(leader)), "{error}");
    assert!(error.contains("node demote"), "{error}");
    // The others go on, and so does this one with what belongs there.
    managers.all[&leader].write(admit(30)).await.unwrap();
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&new, &dir).unwrap();
    managers.restart(follower).await;
    managers.all[&follower].read_barrier().await.unwrap();
    assert_eq!(numbers(&managers.all[&follower]), (0..=30).collect());
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_folder_stops_when_it_meets_the_leader() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let follower = managers.follower(leader);
    managers.set_back(leader, follower).await;
    // It cannot ask anybody at its start.
    managers.cut(follower);
    managers.restart(follower).await;
    let leader = managers.leader().await;
    managers.heal(follower);
    let stopped = wait_for_role(&managers.all[&follower], |role| matches!(role, Role::Stopped { .. })).await;
    let Role::Stopped { reason } = stopped else { unreachable!() };
    assert!(reason.contains("log.db is damaged") && reason.contains("had acknowledged"), "{reason}");
    managers.all[&leader].write(admit(30)).await.unwrap();
    assert_eq!(managers.leader().await, leader, "nothing happened to the leader");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_before_the_first_entry_does_not_vote_and_stops_when_it_meets_the_leader() {
    const LATE: u64 = 3;
    let mut managers = Managers::start(2).await;
    let (dir, old) = (managers.options(LATE).dir, managers.folder.path().join("old"));
    Consensus::join(managers.options(LATE), Watcher::new()).await.unwrap().shutdown().await;
    copy(&dir, &old);
    managers.restart(LATE).await;
    managers.steer(&[1, 2, LATE]).await;
    if managers.leader().await == LATE {
        managers.all[&LATE].hand_over(Some(1)).await.unwrap();
    }
    let leader = managers.leader().await;
    managers.write_to(leader, 0..10, LATE).await;
    managers.kill(LATE).await;
    fs::remove_dir_all(&dir).unwrap();
    copy(&old, &dir);
    let empty = Consensus::open(managers.options(LATE), Watcher::new()).await.unwrap();
    // A candidate that lacks all that was written would be as good as any other.
    let (here, there) = duplex(1 << 16);
    let server = empty.clone();
    let served = tokio::spawn(async move { server.serve(Box::new(there), "here", Arc::new(|| Ok(()))).await });
    let (mut sender, mut receiver) = channel::<_, Request, Answer>(here);
    sender.send(&Request::Hello(Hello { protocol: RAFT_PROTOCOL, to: LATE, by: None, from: None })).await.unwrap();
    let vote = Vote { leader_id: LeaderId { term: 99, node_id: 2 }, committed: false };
    let candidacy = Candidacy::from(&VoteRequest::<Types>::new(vote, None));
    for (number, request) in [(1, Request::PreVote(candidacy.clone())), (2, Request::Vote(candidacy))] {
        sender.send_to(number, &request).await.unwrap();
        let answer = receiver.recv_from().await.unwrap();
        assert!(matches!(answer, Some((at, Answer::Refused(_))) if at == number), "{answer:?}");
    }
    drop((sender, receiver));
    drop(served.await);
    managers.add(LATE, empty);
    let stopped = wait_for_role(&managers.all[&LATE], |role| matches!(role, Role::Stopped { .. })).await;
    let Role::Stopped { reason } = stopped else { unreachable!() };
    assert!(reason.contains("the log is empty and lacks what this manager had acknowledged"), "{reason}");
    assert!(reason.contains(&addr(leader)), "{reason}");
    managers.all[&leader].write(admit(10)).await.unwrap();
    assert_eq!(managers.leader().await, leader, "nothing happened to the leader");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_start_together_ask_in_vain_and_go_on() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let follower = managers.follower(leader);
    managers.write_to(leader, 0..10, follower).await;
    for id in 1..=3 {
        managers.kill(id).await;
    }
    let all = join_all((1..=3).map(|id| Consensus::open(managers.options(id), Watcher::new()))).await;
    for (id, consensus) in (1..=3).zip(all) {
        managers.add(id, consensus.unwrap());
    }
    write_surely(&managers, 10).await;
    for manager in managers.all.values() {
        manager.read_barrier().await.unwrap();
        assert_eq!(numbers(manager), (0..=10).collect());
    }
    managers.shutdown().await;
}
