//! The cluster.

use super::*;

fn version(plane: &TestPlane) -> u64 {
    plane.state().cluster().expect("cluster").version
}

#[tokio::test]
async fn the_cluster_is_shown_without_its_key() {
    let answer = get(&cluster(), "/swarm").await.ok();
    assert!(!String::from_utf8_lossy(&answer.body).contains("root-key"));
    let json = answer.json();
    assert_eq!(json["JoinTokens"], json!({"Worker": "W", "Manager": "M"}));
    assert_eq!(json["TLSInfo"]["TrustRoot"], "PEM");
    assert_eq!(json["Spec"]["Name"], "default");
    assert_eq!(json["Spec"]["Dispatcher"]["HeartbeatPeriod"], 2_000_000_000_i64);
    assert_eq!(json["CreatedAt"], "2023-11-14T22:13:21Z");
    assert_eq!(get(&cluster(), "/swarm/unlockkey").await.ok().json(), json!({"UnlockKey": ""}));
}

#[tokio::test]
async fn settings_change_and_zero_means_the_default() {
    let plane = cluster();
    let mut spec = get(&plane, "/swarm").await.json()["Spec"].clone();
    spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(2);
    spec["CAConfig"]["NodeCertExpiry"] = json!(0);
    let query = format!("version={}&rotateWorkerToken=false&rotateManagerToken=False", version(&plane));
    let answer = post(&plane, &format!("/swarm/update?{query}"), &spec).await.ok();
    assert!(answer.body.is_empty());
    let after = get(&plane, "/swarm").await.json();
    assert_eq!(after["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 2);
    assert_eq!(after["Spec"]["CAConfig"]["NodeCertExpiry"], 7_776_000_000_000_000_i64);
    assert_eq!(after["JoinTokens"], json!({"Worker": "W", "Manager": "M"}));
}

#[tokio::test]
async fn tokens_rotate_one_by_one() {
    let plane = cluster();
    let spec = get(&plane, "/swarm").await.json()["Spec"].clone();
    post(&plane, &format!("/swarm/update?version={}&rotateWorkerToken=true", version(&plane)), &spec).await.ok();
    let tokens = get(&plane, "/swarm").await.json()["JoinTokens"].clone();
    assert_eq!(tokens, json!({"Worker": "W-rotated", "Manager": "M"}));
    post(&plane, &format!("/swarm/update?version={}&rotateManagerToken=1", version(&plane)), &spec).await.ok();
    let tokens = get(&plane, "/swarm").await.json()["JoinTokens"].clone();
    assert_eq!(tokens, json!({"Worker": "W-rotated", "Manager": "M-rotated"}));
}

#[tokio::test]
async fn autolock_has_a_key_while_it_is_on() {
    let plane = cluster();
    let key = async || get(&plane, "/swarm/unlockkey").await.ok().json()["UnlockKey"].as_str().unwrap().to_owned();
    let update = async |on: bool, rotate: &str| {
        let mut spec = get(&plane, "/swarm").await.json()["Spec"].clone();
        spec["EncryptionConfig"]["AutoLockManagers"] = json!(on);
        let query = format!("version={}&rotateManagerUnlockKey={rotate}", version(&plane));
        post(&plane, &format!("/swarm/update?{query}"), &spec).await.ok();
        key().await
    };
    let first = update(true, "false").await;
    assert!(first.starts_with("unlock-key-"), "{first}");
    assert_eq!(update(true, "false").await, first, "an update of something else keeps the key");
    assert_ne!(update(true, "true").await, first);
    assert!(!String::from_utf8_lossy(&get(&plane, "/swarm").await.ok().body).contains("unlock-key-"));
    assert_eq!(update(false, "false").await, "");
    assert_eq!(update(false, "true").await, "", "there is none to rotate");
    assert_ne!(update(true, "false").await, first, "an old key never comes back");
}

#[tokio::test]
async fn the_root_is_replaced_once_at_a_time() {
    let plane = cluster();
    let update = async |count: u64| {
        let mut spec = get(&plane, "/swarm").await.json()["Spec"].clone();
        spec["CAConfig"]["ForceRotate"] = json!(count);
        post(&plane, &format!("/swarm/update?version={}", version(&plane)), &spec).await
    };
    update(1).await.ok();
    let swarm = get(&plane, "/swarm").await.ok();
    assert!(!String::from_utf8_lossy(&swarm.body).contains("new-key"));
    let swarm = swarm.json();
    assert_eq!((&swarm["RootRotationInProgress"], &swarm["JoinTokens"]["Worker"]), (&json!(true), &json!("W")));
    update(1).await.ok();
    assert!(update(2).await.error(400).contains("0 of 2 nodes have followed"));

    // The end comes when all nodes have certificates of the new root, and no sooner.
    let join_tokens = Arc::new(JoinTokens { worker: Redacted::new("W2"), manager: Redacted::new("M2") });
    let finish = |key_id: &str| Op::FinishRootRotation { key_id: key_id.into(), join_tokens: join_tokens.clone() };
    let try_finish =
        async |key_id| plane.propose(vec![Tx::new(vec![finish(key_id)])]).await.unwrap().outcomes.remove(0).is_ok();
    for node in [MANAGER, WORKER] {
        assert!(!try_finish("new").await);
        let mut description = NodeDescription::default();
        description.certificate.issuer = "new".into();
        report_node(&plane, node, NodeState::Ready, Some(description));
    }
    assert!(!try_finish("other").await);
    assert!(try_finish("new").await && !try_finish("new").await);
    let swarm = get(&plane, "/swarm").await.json();
    assert_eq!((&swarm["RootRotationInProgress"], &swarm["JoinTokens"]["Worker"]), (&json!(false), &json!("W2")));
    assert!(
        !get(&plane, "/nodes").await.json().to_string().contains("Issuer\":\"new"),
        "Docker has other words for it"
    );
    update(2).await.ok();
}

#[tokio::test]
async fn a_root_of_the_operators_own_takes_over_and_its_key_shows_nowhere() {
    let plane = cluster();
    let own = swarm_wire::Ca::create().unwrap();
    let mut spec = get(&plane, "/swarm").await.json()["Spec"].clone();
    spec["CAConfig"]["SigningCACert"] = json!(own.cert_pem());
    spec["CAConfig"]["SigningCAKey"] = json!(own.key_pem().expose());
    post(&plane, &format!("/swarm/update?version={}", version(&plane)), &spec).await.ok();
    let state = plane.state();
    let cluster = state.cluster().unwrap();
    assert_eq!(cluster.root_rotation.as_ref().unwrap().root, own.to_root().unwrap());
    assert!(cluster.spec.ca_config.signing_ca_cert.is_empty() && cluster.spec.ca_config.extra.is_empty());
    let shown = String::from_utf8_lossy(&get(&plane, "/swarm").await.ok().body).into_owned();
    assert!(!shown.contains("PRIVATE") && !shown.contains("Signing"), "{shown}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let plane = cluster();
    let now = version(&plane);
    let before = plane.state().revision();
    for (query, spec, status, part) in [
        (format!("version={}", now + 1), json!({}), 500, "update out of sequence"),
        (String::new(), json!({}), 400, "invalid swarm version ''"),
        ("version=x".into(), json!({}), 400, "invalid swarm version 'x'"),
        (format!("version={now}&rotateWorkerToken=maybe"), json!({}), 400, "'maybe'"),
        (format!("version={now}"), json!({"Name": "other"}), 400, "must be named"),
        (format!("version={now}"), json!({"CAConfig": {"SigningCACert": "PEM"}}), 400, "needs its key (--ca-key)"),
        (format!("version={now}"), json!({"CAConfig": {"SigningCAKey": "PEM"}}), 400, "needs its certificate"),
        (
            format!("version={now}"),
            json!({"CAConfig": {"SigningCACert": "x", "SigningCAKey": "y"}}),
            400,
            "cannot be used",
        ),
        (format!("version={now}"), json!({"CAConfig": {"ExternalCAs": [{"URL": "x"}]}}), 501, "external certificate"),
        (format!("version={now}"), json!({"CAConfig": {"SigningX": "PEM"}}), 501, "CAConfig.SigningX"),
        (format!("version={now}"), json!({"CAConfig": {"NodeCertExpiry": 1}}), 400, "1h0m0s"),
        (format!("version={now}"), json!({"Raft": {"SnapshotInterval": "x"}}), 400, "Raft.SnapshotInterval"),
    ] {
        let message = post(&plane, &format!("/swarm/update?{query}"), &spec).await.error(status);
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(plane.state().revision(), before, "nothing was written");
}
