//! Managers compare what they have applied, by their digests at the same index.
//!
//! Each asks all others. One that differs from a majority of all that vote, which agrees, stops, whatever it is. Where no
//! majority agrees nobody can tell who is right: nothing more is decided until somebody has chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    Consensus, Member, Status,
    consensus::WeakConsensus,
    history::KEEP_EITHER,
    line::Kind,
    message::{Answer, Request},
    survey::ANSWER_MAX,
};

/// Longest time between two comparisons.
const INTERVAL: Duration = Duration::from_secs(5);
/// Entries after which the managers compare before that.
const INTERVAL_ENTRIES: u64 = 1_000;
/// How often it is looked whether so many were applied: more often than the digests that are kept go by.
const LOOK: Duration = Duration::from_millis(100);

/// A digest that a manager has at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    index: u64,
    value: u128,
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// This manager is one of a majority, or nobody differs.
    Agreed,
    /// A majority agrees without this manager; why it stops.
    Outvoted(String),
    /// No majority agrees.
    Undecided(String),
}

/// Compares until Raft ends.
pub(crate) async fn run(consensus: WeakConsensus, undecided: watch::Sender<Option<String>>) {
    // Managers that had another digest when they last said it.
    let mut differing = BTreeSet::new();
    let (mut compared_at, mut compared) = (0, None::<Instant>);
    loop {
        let Some(consensus) = consensus.upgrade() else { return };
        let status = consensus.status();
        if status.stopped.is_some() {
            return;
        }
        let applied = status.applied_index.unwrap_or_default();
        let due = compared.is_none_or(|at| at.elapsed() >= INTERVAL);
        if due || applied.saturating_sub(compared_at) >= INTERVAL_ENTRIES {
            (compared_at, compared) = (applied, Some(Instant::now()));
            match consensus.compare(&status, &mut differing).await {
                Verdict::Agreed => drop(undecided.send_if_modified(|text| text.take().is_some())),
                Verdict::Outvoted(reason) => return consensus.stop_outvoted(reason, &status.members).await,
                Verdict::Undecided(text) => {
                    undecided.send_if_modified(|known| {
                        if known.is_none() {
                            tracing::error!(text, "the managers differ");
                        }
                        let changed = known.as_ref() != Some(&text);
                        *known = Some(text);
                        changed
                    });
                }
            }
        }
        drop(consensus);
        sleep(LOOK).await;
    }
}

impl Consensus {
    /// Why nothing is decided, while that is so: managers differ, and no majority agrees.
    pub fn undecided(&self) -> watch::Receiver<Option<String>> {
        self.undecided_watch().clone()
    }

    async fn compare(&self, status: &Status, differing: &mut BTreeSet<u64>) -> Verdict {
        let Some((level, newest)) = self.digests().get().newest() else { return Verdict::Agreed };
        // In between two sets of managers it is not clear what a majority is; that lasts for moments.
        if status.joint {
            return Verdict::Agreed;
        }
        let others: Vec<&Member> = status.members.iter().filter(|member| member.raft_id != status.raft_id).collect();
        let asked = self.ask_digests(&others, level, newest).await;
        differing.retain(|id| others.iter().any(|member| member.raft_id == *id));
        let mut agreeing = BTreeSet::from([status.raft_id]);
        for (id, found) in &asked {
            // One that is too far behind cannot be compared now.
            let Some(own) = self.digests().get().at(found.index) else { continue };
            if own == found.value {
                differing.remove(id);
                agreeing.insert(*id);
            } else {
                differing.insert(*id);
            }
        }
        if differing.is_empty() {
            return Verdict::Agreed;
        }
        let is_voter = |id: u64| status.members.iter().any(|member| member.raft_id == id && member.voter);
        let voters = status.members.iter().filter(|member| member.voter).count();
        if agreeing.iter().filter(|id| is_voter(**id)).count() > voters / 2 {
            // They find out by themselves, and stop.
            tracing::warn!(managers = ?differing, "managers have something else than the others");
            return Verdict::Agreed;
        }
        // Who agrees with whom shows at one index.
        let index = asked.values().map(|found| found.index).min().unwrap_or(newest).min(newest);
        let mut at = self.ask_digests(&others, level, index).await;
        at.retain(|id, found| found.index == index && is_voter(*id));
        let Some(own) = self.digests().get().at(index) else { return self.undecided_still() };
        if at.values().all(|found| found.value == own) {
            return self.undecided_still();
        }
        let addr = |id: &u64| {
            let member = status.members.iter().find(|member| member.raft_id == *id);
            member.map_or_else(String::new, |member| member.addr.clone())
        };
        judge(own, index, level, voters, &at, is_voter(status.raft_id), addr)
    }

    /// What was found before holds as long as nothing else is found.
    fn undecided_still(&self) -> Verdict {
        match &*self.undecided_watch().borrow() {
            Some(text) => Verdict::Undecided(text.clone()),
            None => Verdict::Agreed,
        }
    }

    /// The digests that these managers have at this index, or at the newest that they have.
    async fn ask_digests(&self, of: &[&Member], level: u16, index: u64) -> BTreeMap<u64, Found> {
        let asked = join_all(of.iter().map(|member| async {
            let line = self.network().line(Kind::Ask, member.raft_id, &member.addr);
            let answer = timeout(ANSWER_MAX, line.send(Request::Digest { level, index }, ANSWER_MAX)).await;
            let Ok(Ok(Answer::Digest(Some(mark)))) = answer else { return None };
            Some((member.raft_id, Found { index: mark.index, value: mark.digest.into() }))
        }));
        asked.await.into_iter().flatten().collect()
    }
}

/// Who is right, by the digests of managers that vote at one index; this manager is not among them.
fn judge(
    own: u128,
    index: u64,
    level: u16,
    voters: usize,
    others: &BTreeMap<u64, Found>,
    votes: bool,
    addr: impl Fn(&u64) -> String,
) -> Verdict {
    let mut groups: BTreeMap<u128, Vec<String>> = BTreeMap::new();
    for (id, found) in others {
        groups.entry(found.value).or_default().push(addr(id));
    }
    let with_us = groups.remove(&own).unwrap_or_default();
    if groups.is_empty() || with_us.len() + usize::from(votes) > voters / 2 {
        return Verdict::Agreed;
    }
    let groups = groups.iter().map(|(value, who)| (who, format!("{} {value:032x}", who.join(" and "))));
    let others: Vec<(&Vec<String>, String)> = groups.collect();
    let texts: Vec<&str> = others.iter().map(|(_, text)| text.as_str()).collect();
    let found = format!(
        "at entry {index} the digest of what was applied (since feature level {level}) is {own:032x} here{}, and of {}",
        if with_us.is_empty() { String::new() } else { format!(" and at {}", with_us.join(" and ")) },
        texts.join(", of ")
    );
    if others.iter().any(|(who, _)| who.len() > voters / 2) {
        return Verdict::Outvoted(format!(
            "this manager has something else than most managers: {found}. Nothing was changed; the others go on. \
             {KEEP_EITHER}"
        ));
    }
    Verdict::Undecided(format!(
        "the managers have different states, and no majority of the {voters} agrees: {found}. Nothing more is decided: no \
         task is made, moved or restarted, and what you read may be of either. Bring managers that are away back; where no \
         majority agrees then, choose one that is right: `node demote` and `node rm --force` the others on it, run `swarm \
         leave --force` on each of those, and join them again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(own: u128, voters: usize, others: &[(u64, u128)], votes: bool) -> Verdict {
        let others = others.iter().map(|(id, value)| (*id, Found { index: 7, value: *value })).collect();
        judge(own, 7, 2, voters, &others, votes, |id| format!("10.0.0.{id}:2377"))
    }

    #[test]
    fn who_differs_from_a_majority_of_all_stops() {
        let Verdict::Outvoted(text) = verdict(1, 3, &[(2, 5), (3, 5)], true) else { panic!("it goes on") };
        assert!(text.contains("at entry 7") && text.contains("10.0.0.2:2377 and 10.0.0.3:2377"), "{text}");
        assert!(text.contains(&format!("{:032x} here", 1)) && text.contains(&format!("{:032x}", 5)), "{text}");
        assert!(matches!(verdict(1, 5, &[(2, 5), (3, 5), (4, 1), (5, 5)], true), Verdict::Outvoted(_)));
        assert!(matches!(verdict(1, 1, &[(2, 5)], false), Verdict::Outvoted(_)), "also who does not vote yet");
    }

    #[test]
    fn who_is_one_of_a_majority_goes_on() {
        assert_eq!(verdict(5, 3, &[(2, 5), (3, 1)], true), Verdict::Agreed);
        assert_eq!(verdict(5, 5, &[(2, 5), (3, 5), (4, 1), (5, 2)], true), Verdict::Agreed);
        assert_eq!(verdict(5, 3, &[(2, 5)], true), Verdict::Agreed);
        assert_eq!(verdict(5, 3, &[], true), Verdict::Agreed);
    }

    #[test]
    fn where_no_majority_agrees_nobody_stops() {
        for (voters, others) in
            [(2, vec![(2, 5)]), (3, vec![(2, 5)]), (3, vec![(2, 5), (3, 6)]), (4, vec![(2, 1), (3, 5), (4, 5)])]
        {
            let Verdict::Undecided(text) = verdict(1, voters, &others, true) else { panic!("{voters}: {others:?}") };
            assert!(text.contains("Nothing more is decided") && text.contains("10.0.0.2:2377"), "{text}");
        }
    }
}
