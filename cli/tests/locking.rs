//! Commands that handle autolock's key and the root CA.

mod support;

use std::{io::Write, process::Stdio};

use serde_json::json;

use crate::support::{Fake, Reply};

const KEY: &str = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Runs swarmctl with a standard input; returns its exit code and what it wrote, errors last.
fn run_with(fake: &Fake, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut command = fake.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("swarmctl starts");
    // It may end without reading.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[test]
fn the_key_comes_from_standard_input() {
    let fake = Fake::start();
    fake.on_json("GET /info", &json!({ "Swarm": { "LocalNodeState": "locked" } }));
    fake.on("POST /swarm/unlock", [Reply::bytes(Vec::new())]);
    assert_eq!(run_with(&fake, &["swarm", "unlock"], &format!("  {KEY}\n")), (Some(0), String::new()));
    assert_eq!(fake.seen("POST /swarm/unlock")[0].body, json!({ "UnlockKey": KEY }));
    let (code, text) = run_with(&fake, &["swarm", "unlock"], "\n");
    assert!(code == Some(1) && text.contains("no key on standard input"), "{text}");
    assert_eq!(run_with(&fake, &["swarm", "unlock", KEY], "").0, Some(2), "a key never stands on the command line");

    fake.on("POST /swarm/unlock", [Reply::error(401, "swarm could not be unlocked: invalid key provided")]);
    let (code, text) = run_with(&fake, &["swarm", "unlock"], KEY);
    assert!(code == Some(1) && text.contains("invalid key provided") && !text.contains(KEY), "{text}");
    fake.on_json("GET /info", &json!({ "Swarm": { "LocalNodeState": "active" } }));
    assert!(run_with(&fake, &["swarm", "unlock"], KEY).1.contains("swarm is not locked"));
    assert_eq!(fake.seen("POST /swarm/unlock").len(), 2, "nobody is told a key that nobody asked for");
}

#[test]
fn the_key_is_shown_and_rotated() {
    let fake = Fake::start();
    let swarm =
        |on: bool| json!({ "Version": { "Index": 7 }, "Spec": { "EncryptionConfig": { "AutoLockManagers": on } } });
    fake.on_json("GET /swarm", &swarm(false)).on_json("GET /swarm/unlockkey", &json!({ "UnlockKey": "" }));
    fake.on("POST /swarm/update", [Reply::bytes(Vec::new())]);
    assert!(fake.run(&["swarm", "unlock-key"]).failed().contains("no unlock key is set"));
    assert!(fake.run(&["swarm", "unlock-key", "--rotate"]).failed().contains("autolock is not turned on"));
    assert!(fake.seen("POST /swarm/update").is_empty());

    fake.on_json("GET /swarm/unlockkey", &json!({ "UnlockKey": KEY }));
    let text = fake.run(&["swarm", "update", "--autolock"]).ok();
    assert!(text.starts_with("Swarm updated.\nTo unlock a swarm manager") && text.contains(KEY), "{text}");
    assert_eq!(fake.seen("POST /swarm/update")[0].body["EncryptionConfig"]["AutoLockManagers"], true);
    fake.on_json("GET /swarm", &swarm(true));
    assert_eq!(fake.run(&["swarm", "unlock-key", "-q"]).ok(), format!("{KEY}\n"));
    assert_eq!(fake.run(&["swarm", "unlock-key", "-q", "--rotate"]).ok(), format!("{KEY}\n"));
    let rotate = &fake.seen("POST /swarm/update")[1];
    assert_eq!((&*rotate.query["rotateManagerUnlockKey"], &*rotate.query["version"]), ("true", "7"));
    assert_eq!(rotate.body, swarm(true)["Spec"]);
}

#[test]
fn the_root_is_shown_and_replaced() {
    let fake = Fake::start();
    let swarm = |rotating: bool, root: &str| {
        json!({
            "Version": { "Index": 7 },
            "Spec": { "CAConfig": { "ForceRotate": 2 } },
            "RootRotationInProgress": rotating,
            "TLSInfo": { "TrustRoot": format!("{root}\n"), "CertIssuerPublicKey": "bmV3" },
        })
    };
    let node = |name: &str, key: &str| {
        json!({
            "ID": name,
            "Description": { "Hostname": name, "TLSInfo": { "CertIssuerPublicKey": key } },
            "Status": { "State": "ready" },
        })
    };
    fake.on_json("GET /swarm", &swarm(false, "old"));
    fake.on_json("GET /nodes", &json!([node("a", "bmV3"), node("b", "b2xk")]));
    fake.on("POST /swarm/update", [Reply::bytes(Vec::new())]);
    assert_eq!(fake.run(&["swarm", "ca"]).ok(), "old\n");
    assert_eq!(fake.run(&["swarm", "ca", "--rotate", "--detach"]).ok(), "");
    assert_eq!(fake.seen("POST /swarm/update")[0].body["CAConfig"]["ForceRotate"], 3);
    let steps = [swarm(false, "old"), swarm(true, "old"), swarm(false, "new")];
    fake.on("GET /swarm", steps.iter().map(Reply::json));
    let ran = fake.run(&["swarm", "ca", "--rotate"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "new\n"));
    assert!(ran.stderr.contains("rotated certificates: 1 of 2 nodes; waiting for b (ready)"), "{}", ran.stderr);
    assert_eq!(fake.run(&["swarm", "ca", "--detach"]).code, Some(2), "only with --rotate");

    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert", "key"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("the {name}")).unwrap();
        path.display().to_string()
    });
    fake.on_json("GET /swarm", &swarm(false, "old"));
    let own = ["swarm", "ca", "--rotate", "--ca-cert", &cert, "--ca-key", &key, "--cert-expiry", "720h", "--detach"];
    assert_eq!(fake.run(&own).ok(), "");
    let sent = fake.seen("POST /swarm/update");
    let sent = &sent.last().unwrap().body["CAConfig"];
    assert_eq!((&sent["SigningCACert"], &sent["SigningCAKey"]), (&json!("the cert"), &json!("the key")));
    assert_eq!((&sent["ForceRotate"], &sent["NodeCertExpiry"]), (&json!(2), &json!(2_592_000_000_000_000_i64)));
    assert_eq!(fake.run(&["swarm", "ca", "--rotate", "--ca-cert", &cert]).code, Some(2), "not without its key");
    let ran = fake.run(&["swarm", "ca", "--rotate", "--ca-cert", "/none.pem", "--ca-key", &key]);
    assert!(ran.code == Some(1) && ran.stderr.contains("/none.pem cannot be read"), "{}", ran.stderr);
}
