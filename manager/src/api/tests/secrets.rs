//! Secrets, and with them all named objects.

use base64::{Engine, prelude::BASE64_STANDARD};
use swarm_model::{ObjectKey, ObjectKind};

use super::*;

const DATA: &str = "s3cr3t-7d1f";

fn secret(name: &str) -> Value {
    json!({"Name": name, "Labels": {"tier": name}, "Data": BASE64_STANDARD.encode(DATA)})
}

async fn add(plane: &TestPlane, name: &str) -> String {
    let answer = post(plane, "/secrets/create", &secret(name)).await.ok();
    assert_eq!(answer.status, 201);
    answer.json()["ID"].as_str().expect("an id").to_owned()
}

/// Makes a service that names a secret.
async fn use_secret(plane: &TestPlane, service: &str, secret: &str) {
    let mut spec = plain(service);
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{"SecretID": secret, "SecretName": "key"}]);
    post(plane, "/services/create", &spec).await.ok();
}

#[tokio::test]
async fn a_secret_is_made_shown_and_removed() {
    let plane = cluster();
    let id = add(&plane, "tls.key").await;
    let shown = get(&plane, "/secrets/tls.key").await.ok().json();
    assert_eq!(shown["ID"], id.as_str());
    assert_eq!(shown["Spec"], json!({"Name": "tls.key", "Labels": {"tier": "tls.key"}}));
    assert!(shown["Version"]["Index"].is_u64() && shown["CreatedAt"] == shown["UpdatedAt"]);
    let keys: Vec<&String> = shown.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["CreatedAt", "ID", "Spec", "UpdatedAt", "Version"]);
    for text in ["TLS.KEY", &id, &id[..12]] {
        assert_eq!(get(&plane, &format!("/secrets/{text}")).await.ok().json()["ID"], id.as_str());
    }
    let kept = plane.state().objects(ObjectKind::Secret).next().expect("it is there").clone();
    assert_eq!(kept.content.as_secret().expect("a secret").data.expose(), DATA.as_bytes());

    let gone = delete(&plane, "/secrets/tls.key").await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(get(&plane, "/secrets").await.ok().json(), json!([]));
    for path in ["/secrets/tls.key", "/secrets/nope"] {
        assert_eq!(get(&plane, path).await.error(404), format!("secret {} not found", &path[9..]));
        assert_eq!(delete(&plane, path).await.error(404), format!("secret {} not found", &path[9..]));
    }
}

#[tokio::test]
async fn a_name_is_there_once_without_regard_to_case() {
    let plane = cluster();
    add(&plane, "key").await;
    let taken = post(&plane, "/secrets/create", &secret("KEY")).await.error(409);
    assert_eq!(taken, "secret KEY already exists");
    create(&plane, "key").await;
    delete(&plane, "/secrets/key").await.ok();
    add(&plane, "Key").await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_not_shown() {
    let plane = cluster();
    let with = |field: &str, value: Value| {
        let mut secret = secret("key");
        secret[field] = value;
        secret
    };
    let template =
        |data: &[u8]| json!({"Name": "key", "Data": BASE64_STANDARD.encode(data), "Templating": {"Name": "golang"}});
    for (body, part) in [
        (with("Name", json!("")), "name must be provided"),
        (with("Name", json!("a b")), "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed"),
        (with("Data", json!(null)), "secret data must be larger than 0 and less than 512000 bytes: these are 0"),
        (with("Data", json!(BASE64_STANDARD.encode(vec![0; 512_000]))), "less than 512000 bytes: these are 512000"),
        (with("Data", json!(DATA)), "invalid value in Data: the data is not base64 text"),
        (with("Data", json!(48_151_623)), "invalid value in Data: the data is not base64 text"),
        (with("Driver", json!({"Name": "vault"})), "secret driver 'vault' is not supported"),
        (with("Templating", json!({"Name": "jinja"})), "template driver 'jinja' is not known: possible is golang"),
        (
            with("Templating", json!({"Name": "golang", "Options": {"a": "b"}})),
            "template driver golang has no option 'a'",
        ),
        (template(format!("a\n{{{{{DATA}}}}}").as_bytes()), "invalid template in Data, line 2: "),
        (template(format!("{DATA}\n\n{{{{if env \"{DATA}\"}}}}\n").as_bytes()), "Data, line 3: '{{end}}' is missing"),
        (template(b"{{upper\xff}}"), "Data is no text from byte 7 on: a template must be UTF-8"),
    ] {
        let message = post(&plane, "/secrets/create", &body).await.error(400);
        assert!(message.contains(part), "{message}");
        assert!(!message.contains(DATA) && !message.contains("48151623"), "{message}");
    }
    assert!(plane.inner().proposed.is_empty());
    post(&plane, "/secrets/create", &with("Data", json!(BASE64_STANDARD.encode(vec![0; 511_999])))).await.ok();
    let mut good = template(b"{{secret \"key\"}} {{config \"site\"}} {{env \"A\"}} {{.Task.Slot}}");
    good["Name"] = json!("t");
    post(&plane, "/secrets/create", &good).await.ok();
    // Without a driver it is no template.
    post(&plane, "/secrets/create", &json!({"Name": "braces", "Data": BASE64_STANDARD.encode("{{")})).await.ok();
    assert_eq!(get(&plane, "/secrets/t").await.json()["Spec"]["Templating"], json!({"Name": "golang"}));
}

#[tokio::test]
async fn only_labels_can_be_changed() {
    let plane = cluster();
    let id = add(&plane, "key").await;
    let version =
        || plane.state().object(ObjectKey { kind: ObjectKind::Secret, id: id.parse().unwrap() }).unwrap().version;
    let update =
        async |version: u64, body: Value| post(&plane, &format!("/secrets/{id}/update?version={version}"), &body).await;
    let first = version();
    // Clients send the data along, or what they were shown.
    for body in [
        json!({"Name": "key", "Labels": {"a": "1"}}),
        json!({"Name": "key", "Labels": {"a": "2"}, "Data": secret("key")["Data"]}),
    ] {
        let answer = update(version(), body).await.ok();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    assert!(version() > first);
    let proposed = plane.inner().proposed.last().cloned();
    assert!(matches!(proposed, Some(Op::LabelObject { .. })), "the data is not written to the log again");
    let shown = get(&plane, "/secrets/key").await.json();
    assert_eq!(shown["Spec"]["Labels"], json!({"a": "2"}));
    assert_ne!(shown["CreatedAt"], shown["UpdatedAt"]);
    for body in [json!({"Name": "other"}), json!({"Name": "key", "Data": "eA=="}), json!({"Name": "KEY"})] {
        let error = update(version(), body).await.error(400);
        assert!(error.starts_with("only updates to Labels are allowed"), "{error}");
    }
    assert!(update(first, json!({"Name": "key"})).await.error(500).starts_with("update out of sequence"));
    let error = post(&plane, "/secrets/key/update", &json!({"Name": "key"})).await.error(400);
    assert!(error.starts_with("invalid secret version"), "{error}");
    assert_eq!(
        post(&plane, "/secrets/nope/update?version=1", &json!({"Name": "nope"})).await.error(404),
        "secret nope not found"
    );
}

#[tokio::test]
async fn what_a_service_names_stays() {
    let plane = cluster();
    let id = add(&plane, "key").await;
    use_secret(&plane, "web", &id).await;
    assert_eq!(delete(&plane, "/secrets/key").await.error(400), "secret 'key' is in use by the following service: web");
    use_secret(&plane, "api", &id).await;
    assert_eq!(
        delete(&plane, "/secrets/key").await.error(400),
        "secret 'key' is in use by the following services: api, web"
    );
    assert_eq!(get(&plane, "/secrets?services=true").await.json()[0]["Services"], json!(["web", "api"]));
    assert_eq!(get(&plane, "/secrets/key?services=1").await.json()["Services"], json!(["web", "api"]));
    for service in ["web", "api"] {
        delete(&plane, &format!("/services/{service}")).await.ok();
    }
    assert_eq!(get(&plane, "/secrets/key?services=1").await.json()["Services"], json!([]));
    delete(&plane, "/secrets/key").await.ok();
}

#[tokio::test]
async fn lists_of_secrets_are_filtered() {
    let plane = cluster();
    for name in ["web", "web2", "db"] {
        add(&plane, name).await;
    }
    let id = get(&plane, "/secrets/db").await.json()["ID"].as_str().unwrap().to_owned();
    for (filters, expected) in [
        (json!({}), &["web", "web2", "db"][..]),
        (json!({"name": {"we": true}}), &["web", "web2"]),
        (json!({"name": ["web2", "D"]}), &["web2", "db"]),
        (json!({"names": ["web", "nope"]}), &["web"]),
        (json!({"id": [id[..5]]}), &["db"]),
        (json!({"label": ["tier=web"]}), &["web"]),
        (json!({"label": ["tier"], "name": ["db"]}), &["db"]),
    ] {
        assert_eq!(filtered(&plane, "/secrets", filters.clone()).await.all("/Spec/Name"), expected, "{filters}");
    }
    let error = filtered(&plane, "/secrets", json!({"driver": ["x"]})).await.error(400);
    assert_eq!(error, "invalid filter 'driver' (possible are id, name, names, label)");
}
