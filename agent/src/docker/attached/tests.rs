use serde_json::json;

use super::*;

fn inspected(status: &str, networks: serde_json::Value) -> ContainerInspectResponse {
    serde_json::from_value(json!({
        "Id": "0123456789abcdef",
        "Name": "/shell",
        "State": {"Status": status, "Pid": 7},
        "HostConfig": {"Dns": ["1.1.1.1", "x"]},
        "NetworkSettings": {"SandboxKey": "/run/netns/x", "Networks": networks},
    }))
    .unwrap()
}

#[test]
fn a_container_is_in_the_networks_whose_parts_it_names_until_it_has_ended() {
    let parts = Parts {
        of_id: [("e1".to_owned(), ObjectId(7)), ("e2".to_owned(), ObjectId(8))].into(),
        of_name: [("tools".to_owned(), ObjectId(7)), ("new".to_owned(), ObjectId(8))].into(),
    };
    let networks = json!({
        "tools": {"NetworkID": "e1", "IPAMConfig": {"IPv4Address": "10.0.1.5"}, "Aliases": ["db", "SHELL"]},
        "new": {"NetworkID": "", "IPAMConfig": {"IPv4Address": "10.0.2.5", "IPv6Address": "fd00::5"}},
        "bridge": {"NetworkID": "e3", "IPAddress": "172.17.0.2"},
        "unsaid": {"NetworkID": "e1"},
    });
    let found = attached(&inspected("running", networks.clone()), &parts).unwrap();
    assert!(found.is_running && found.pid == 7 && found.sandbox.is_some());
    assert_eq!(found.nameservers, [IpAddr::from([1, 1, 1, 1])]);
    let of = |id| found.networks.iter().find(|network| network.network == ObjectId(id)).unwrap();
    assert_eq!(of(7).addrs, [IpAddr::from([10, 0, 1, 5])]);
    assert_eq!(of(7).names, ["shell", "db", "0123456789ab"]);
    assert_eq!(of(8).addrs.len(), 2);
    assert_eq!(found.networks.len(), 2);
    let created = attached(&inspected("created", networks.clone()), &parts).unwrap();
    assert!(!created.is_running && created.sandbox.is_none());
    assert!(!attached(&inspected("restarting", networks.clone()), &parts).unwrap().is_running);
    assert_eq!(attached(&inspected("exited", networks.clone()), &parts), None);
    assert_eq!(attached(&inspected("running", networks), &Parts::default()), None);
}
