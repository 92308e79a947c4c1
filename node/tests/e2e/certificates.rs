//! The root CA is replaced under a cluster that works.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use swarm_wire::{Alpn, IdentityHolder, NodeIdentity, tls};
use tokio::io::AsyncReadExt;

use crate::{
    cluster::{Cluster, Written, service},
    daemon::Daemon,
    managers::{start, wait_managers},
    wait::until,
};

/// Asks for another root CA.
fn rotate(at: &Daemon) {
    until("the rotation begins", || {
        let mut swarm = at.call("GET", "/swarm", None)?;
        let count = swarm["Spec"]["CAConfig"]["ForceRotate"].as_u64().unwrap_or_default();
        swarm["Spec"]["CAConfig"]["ForceRotate"] = json!(count + 1);
        at.call("POST", &format!("/swarm/update?version={}", swarm["Version"]["Index"]), Some(&swarm["Spec"])).map(drop)
    });
}

fn wait_rotated(at: &Daemon) -> Value {
    until("the rotation ends", || match at.call("GET", "/swarm", None)? {
        swarm if swarm["RootRotationInProgress"] == json!(false) => Ok(swarm),
        swarm => Err(swarm["TLSInfo"].to_string()),
    })
}

/// Waits until all nodes show the certificate of the cluster's root, as Docker's client compares them.
fn wait_nodes_follow(cluster: &Cluster, at: &Daemon, root: &Value) {
    until("all nodes have followed", || {
        let nodes = at.call("GET", "/nodes", None)?;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let behind = nodes.iter().find(|node| node["Description"]["TLSInfo"] != *root);
        match behind {
            None if nodes.len() == cluster.nodes.len() => Ok(()),
            _ => Err(format!("{} nodes, {behind:?}", nodes.len())),
        }
    });
}

fn identity(daemon: &Daemon) -> NodeIdentity {
    NodeIdentity::load(&daemon.state_dir().join("certificates"), None).expect("it can be read").expect("it has one")
}

/// What a manager answers on a connection with an identity of before, until it ends.
fn answer(identity: NodeIdentity, addr: &str, alpn: Alpn) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let holder = IdentityHolder::new(identity).expect("an identity");
    runtime.block_on(async {
        let mut answer = Vec::new();
        // With TLS 1.3 a client learns only with its first read that it was refused.
        if let Ok(mut connected) = tls::connect(addr, None, &holder, alpn).await {
            let _ = connected.stream.read_to_end(&mut answer).await;
        }
        answer
    })
}

#[test]
fn all_nodes_change_to_a_new_root_and_the_old_one_is_forgotten() {
    let mut cluster = start(3, 2);
    cluster.create(&service("web", 6));
    let web = BTreeMap::from([("web".to_owned(), 6)]);
    let tasks = cluster.wait_settled(&web);
    let before = cluster.manager().get("/swarm");
    let old: Vec<NodeIdentity> = cluster.nodes.iter().map(identity).collect();

    rotate(&cluster.nodes[1]);
    let after = wait_rotated(&cluster.nodes[2]);
    for (part, field) in [("TLSInfo", "TrustRoot"), ("JoinTokens", "Worker"), ("JoinTokens", "Manager")] {
        assert_ne!(after[part][field], before[part][field], "{field}");
    }
    wait_nodes_follow(&cluster, &cluster.nodes[0], &after["TLSInfo"]);
    for (daemon, old) in cluster.nodes.iter().zip(&old) {
        let now = identity(daemon);
        assert_ne!(now.as_peer().issuer, old.as_peer().issuer);
        assert_eq!(json!(now.root_pem()), after["TLSInfo"]["TrustRoot"], "{} trusts the new root alone", daemon.name);
    }
    // What was signed by the old root opens nothing.
    for (alpn, old) in [(Alpn::Raft, &old[0]), (Alpn::Agent, &old[4]), (Alpn::Http1, &old[4])] {
        assert_eq!(answer(old.clone(), &cluster.nodes[0].addr(), alpn), b"", "{alpn:?}");
    }
    // Nothing was restarted, and the cluster works: a token of before admits nobody, a new one does.
    let stopped =
        |t: &&crate::cluster::Task| !cluster.tasks().expect("tasks").iter().any(|now| now.id == t.id && now.runs());
    assert!(tasks.iter().find(stopped).is_none());
    let newcomer = cluster.new_daemon();
    let stale = before["JoinTokens"]["Worker"].as_str().expect("a token");
    assert!(
        newcomer.refused(400, "POST", "/swarm/join", Some(&cluster.join_request(stale))).contains("another cluster")
    );
    newcomer.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
    cluster.nodes.push(newcomer);
    for daemon in &mut cluster.nodes {
        daemon.kill();
    }
    cluster.nodes.iter_mut().for_each(Daemon::start);
    until("it works after a restart", || match cluster.scale("web", 8) {
        Written::Yes => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_ready();
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 8)]));
}

#[test]
fn managers_join_and_the_leader_stays_through_rotations() {
    let mut cluster = start(3, 0);
    let led = cluster.manager().get("/swarmd/managers");
    for _ in 0..2 {
        rotate(&cluster.nodes[1]);
        wait_rotated(&cluster.nodes[2]);
    }
    let newcomer = cluster.new_daemon();
    newcomer.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Manager")))).expect("it joins");
    cluster.nodes.push(newcomer);
    let names: Vec<&str> = cluster.nodes.iter().map(|daemon| &*daemon.name).collect();
    wait_managers(&cluster, &names);
    let leads = cluster.manager().get("/swarmd/managers");
    assert_eq!((&leads["Term"], &leads["Leader"]), (&led["Term"], &led["Leader"]));
}

#[test]
fn a_rotation_waits_for_nodes_that_are_down_and_no_longer() {
    let mut cluster = start(1, 2);
    let root = cluster.manager().get("/swarm")["TLSInfo"].clone();
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    rotate(cluster.manager());
    let issuer = |view: &Value| view["TLSInfo"]["CertIssuerPublicKey"].clone();
    until("the manager has followed", || {
        let swarm = cluster.manager().call("GET", "/swarm", None)?;
        let own = cluster.manager().call("GET", &format!("/nodes/{}", identity(cluster.manager()).node()), None)?;
        let same = issuer(&swarm) == issuer(&own["Description"]) && issuer(&swarm) != root["CertIssuerPublicKey"];
        if same && swarm["RootRotationInProgress"] == json!(true) { Ok(()) } else { Err(swarm["TLSInfo"].to_string()) }
    });
    // A machine can join meanwhile, and one that was away finds its way with what it has.
    let newcomer = cluster.new_daemon();
    newcomer.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
    cluster.nodes[1].start();
    cluster.wait_state(&cluster.nodes[1], "ready");
    assert_eq!(cluster.manager().get("/swarm")["RootRotationInProgress"], json!(true));
    let mut spec = cluster.manager().get("/swarm");
    spec["Spec"]["CAConfig"]["ForceRotate"] = json!(9);
    let target = format!("/swarm/update?version={}", spec["Version"]["Index"]);
    until("all but one have followed, which who wants another rotation is told", || {
        match cluster.manager().refused(400, "POST", &target, Some(&spec["Spec"])) {
            refused if refused.contains("3 of 4 nodes have followed") => Ok(()),
            refused => Err(refused),
        }
    });
    let lost = identity(&cluster.nodes[2]).node();
    cluster.manager().call("DELETE", &format!("/nodes/{lost}?force=1"), None).expect("it is removed");
    let after = wait_rotated(cluster.manager());
    assert_ne!(after["TLSInfo"]["TrustRoot"], root["TrustRoot"]);
    cluster.nodes[2] = newcomer;
    wait_nodes_follow(&cluster, cluster.manager(), &after["TLSInfo"]);
    cluster.wait_ready();
    let file = cluster.nodes[1].state_dir().join("certificates/swarm-root-ca.crt");
    assert_eq!(json!(fs::read_to_string(file).expect("a root")), after["TLSInfo"]["TrustRoot"]);
}

#[test]
fn a_swarm_changes_to_a_root_of_the_operators_own() {
    let cluster = start(1, 2);
    let before = cluster.manager().get("/swarm");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
    params.distinguished_name.push(rcgen::DnType::CommonName, "Root of our own");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).expect("a certificate").pem();
    let change = |at: &Daemon| {
        let mut swarm = at.call("GET", "/swarm", None)?;
        swarm["Spec"]["CAConfig"]["SigningCACert"] = json!(cert);
        swarm["Spec"]["CAConfig"]["SigningCAKey"] = json!(key.serialize_pem());
        at.call("POST", &format!("/swarm/update?version={}", swarm["Version"]["Index"]), Some(&swarm["Spec"])).map(drop)
    };
    until("the change begins", || change(cluster.manager()));
    let after = wait_rotated(cluster.manager());
    assert_eq!(after["TLSInfo"]["TrustRoot"], json!(cert));
    assert_ne!(after["JoinTokens"], before["JoinTokens"]);
    assert!(!after.to_string().contains("PRIVATE") && !after.to_string().contains("Signing"), "{after}");
    wait_nodes_follow(&cluster, cluster.manager(), &after["TLSInfo"]);
    cluster.wait_ready();
    let newcomer = cluster.new_daemon();
    newcomer.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
    let refused = change(cluster.manager()).expect_err("it has this root");
    assert!(refused.contains("nothing would change"), "{refused}");
}
