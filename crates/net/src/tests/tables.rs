use std::{collections::BTreeSet, net::IpAddr};

use proptest::{prelude::*, sample::subsequence, test_runner::TestRunner};
use swarm_model::ServiceId;

use super::place::*;
use crate::{
    protocol::ToNet,
    state::State,
    table::{Loaded, ResolverPorts, Table},
};

fn addrs(last: u8) -> Vec<IpAddr> {
    (0..4).flat_map(|n| [ip(&format!("10.77.0.{}", last + n)), ip(&format!("fd77::{}", last + n))]).collect()
}

/// The content of a container's tables; services may have the same virtual addresses.
fn table() -> impl Strategy<Value = Table> {
    let some = |last| subsequence(addrs(last), 0..=8);
    let services = prop::collection::btree_map(0..4_u128, (some(10), some(20)), 0..=3);
    let resolver = prop::option::of((1..u16::MAX).prop_map(|port| ResolverPorts { udp: port, tcp: port + 1 }));
    (services, some(30), resolver).prop_map(|(services, gone, resolver)| {
        let mut state = State::default();
        state.apply(&ToNet::PutNetwork(network()));
        for (service, (virtual_addrs, backends)) in services {
            let service = ServiceId(service);
            state.apply(&ToNet::PutService { network: NETWORK, service, virtual_addrs, backends });
        }
        gone.into_iter().for_each(|addr| state.apply(&ToNet::PutGone { network: NETWORK, addr }));
        Table::of(&state, &[NETWORK].into(), resolver)
    })
}

/// The rules of a table, without the order of what has none; none without such a table.
fn rules(netns: &Netns, family: &str) -> Option<BTreeSet<Vec<String>>> {
    let text = netns.try_run(&format!("nft list table {family} swarmd")).ok()?;
    let block = |block: &str| {
        let mut words: Vec<_> = block.split_whitespace().map(|word| word.trim_matches(',').to_owned()).collect();
        words.sort();
        words
    };
    Some(text.split("\t}\n").map(block).collect())
}

#[test]
fn differences_lead_to_the_same_tables_as_a_new_load() {
    if is_skipped() {
        return;
    }
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        println!("nft is not here to list tables");
        return;
    }
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(table(), 2..5), |tables| {
        let (changed, new) = (Netns::new(), Netns::new());
        changed.within(|| {
            let mut loaded = Loaded::open().unwrap();
            tables.iter().for_each(|table| loaded.load(table).unwrap());
        });
        let last = tables.last().unwrap();
        new.within(|| Loaded::open().unwrap().load(last).unwrap());
        prop_assert_eq!(rules(&changed, "ip"), rules(&new, "ip"));
        match (rules(&changed, "ip6"), rules(&new, "ip6")) {
            // A table that was needed once stays, without content.
            (Some(changed), None) => prop_assert!(!changed.iter().flatten().any(|word| word == "elements")),
            (changed, new) => prop_assert_eq!(changed, new),
        }
        Ok(())
    });
    outcome.unwrap();
}
