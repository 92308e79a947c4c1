//! Secrets and configs.

mod support;

use std::{fs, io::Write, process::Stdio};

use serde_json::{Value, json};
use support::{Fake, Ran, Reply, recorded};

const ID: &str = "hvxd25i1aj492kikrao8sjqx7";
const DATA: &str = "s3cr3t-7d1f";
const DATA_BASE64: &str = "czNjcjN0LTdkMWY=";

fn object(name: &str) -> Value {
    json!({
        "ID": ID, "Version": {"Index": 23}, "CreatedAt": "2026-11-22T11:43:18.852369586Z",
        "UpdatedAt": "2026-11-22T11:43:19Z", "Spec": {"Name": name, "Labels": {"k": "v"}, "Future": {"x": 1}},
    })
}

fn with_input(fake: &Fake, args: &[&str], input: &[u8]) -> Ran {
    let mut command = fake.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("swarmctl is there");
    // A command that refuses what it is given may not read it.
    let _ = child.stdin.take().expect("it is a pipe").write_all(input);
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_secret_is_made_of_a_file_or_of_standard_input() {
    let fake = Fake::start();
    fake.on_json("POST /secrets/create", &json!({"ID": ID}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, DATA).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(fake.run(&["secret", "create", "tls.key", file]).ok(), format!("{ID}\n"));
    let line = ["secret", "create", "--label", "k=v", "-l", "x", "--template-driver", "golang", "tls.key", "-"];
    assert_eq!(with_input(&fake, &line, DATA.as_bytes()).ok(), format!("{ID}\n"));
    let seen = fake.seen("POST /secrets/create");
    assert_eq!(seen[0].body, json!({"Name": "tls.key", "Labels": {}, "Data": DATA_BASE64}));
    assert_eq!(
        seen[1].body,
        json!({"Name": "tls.key", "Labels": {"k": "v", "x": ""}, "Data": DATA_BASE64, "Templating": {"Name": "golang"}})
    );
    fake.on("POST /secrets/create", [Reply::error(409, "secret tls.key already exists")]);
    assert_eq!(fake.run(&["secret", "create", "tls.key", file]).failed(), "Error: secret tls.key already exists\n");
}

#[test]
fn data_that_cannot_be_sent_is_not() {
    let fake = Fake::start();
    let error = with_input(&fake, &["secret", "create", "a", "-"], b"").failed();
    assert_eq!(error, "Error: standard input holds no data\n");
    let error = with_input(&fake, &["secret", "create", "a", "-"], &[b'x'; 512_000]).failed();
    assert_eq!(error, "Error: standard input holds too much: the data of a secret has fewer than 512000 bytes\n");
    let error = fake.run(&["secret", "create", "a", "/nope"]).failed();
    assert!(error.starts_with("Error: the data of the secret cannot be read from /nope: "), "{error}");
    let error = fake.run(&["secret", "create", "--driver", "vault", "a", "/nope"]).failed();
    assert_eq!(error, "Error: --driver vault: secret drivers are not supported, the managers keep the data\n");
    assert!(fake.seen("POST /secrets/create").is_empty());
}

#[test]
fn secrets_are_listed_and_shown() {
    let fake = Fake::start();
    let mut listed = object("tls.key");
    listed["Services"] = json!(["web", "api"]);
    fake.on_json("GET /secrets", &json!([listed])).on_json("GET /secrets/tls.key", &object("tls.key"));
    let line = ["secret", "ls", "--filter", "name=tls", "--format", "{{.ID}} {{.Name}} {{.Services}} {{.Labels}}"];
    assert_eq!(fake.run(&line).ok(), "hvxd25i1aj49 tls.key api, web k=v\n");
    let seen = &fake.seen("GET /secrets")[0];
    assert_eq!((&*seen.query["services"], &*seen.query["filters"]), ("true", r#"{"name":{"tls":true}}"#));
    let shown: Value = serde_json::from_str(&fake.run(&["secret", "inspect", "tls.key"]).ok()).unwrap();
    assert_eq!(shown, json!([object("tls.key")]));
    fake.on_json("GET /secrets/tls.key", &listed);
    assert_eq!(
        fake.run(&["secret", "inspect", "--pretty", "tls.key"]).ok(),
        format!(
            "\
ID:             {ID}
Name:           tls.key
Labels:
 k=v
Created at:     2026-11-22T11:43:18.852369586Z
Updated at:     2026-11-22T11:43:19Z
Services:       web, api
"
        )
    );
    assert_eq!(fake.run(&["secret", "inspect", "nope"]).failed(), "Error: no such secret: nope\n");
}

#[test]
fn labels_are_changed_and_the_rest_is_sent_back() {
    let fake = Fake::start();
    let update = format!("POST /secrets/{ID}/update");
    fake.on_json("GET /secrets/tls.key", &object("tls.key"))
        .on(&update, [Reply::error(500, "update out of sequence"), Reply::bytes(Vec::new())]);
    let line = ["secret", "update", "--label-add", "a=b", "--label-rm", "k", "tls.key"];
    assert_eq!(fake.run(&line).ok(), "tls.key\n");
    let seen = &fake.seen(&update)[1];
    assert_eq!(seen.query["version"], "23");
    assert_eq!(seen.body, json!({"Name": "tls.key", "Labels": {"a": "b"}, "Future": {"x": 1}}));
    let error = fake.run(&["secret", "update", "--label-rm", "nope", "tls.key"]).failed();
    assert_eq!(error, "Error: the secret has no label 'nope'\n");
    assert_eq!(fake.run(&["secret", "update", "tls.key"]).code, Some(2));
}

#[test]
fn rm_goes_on_after_a_refusal() {
    let fake = Fake::start();
    let text = "secret 'a' is in use by the following service: web";
    fake.on("DELETE /secrets/a", [Reply::error(400, text)]).on("DELETE /secrets/b", [Reply::bytes(Vec::new())]);
    let ran = fake.run(&["secret", "rm", "a", "nope", "b"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "b\n"));
    assert_eq!(ran.stderr, format!("Error: {text}\nError: no such secret: nope\n"));
}

#[test]
fn a_config_is_made_and_shown_with_its_data() {
    let fake = Fake::start();
    let mut shown = object("site.conf");
    shown["Spec"] = json!({"Name": "site.conf", "Labels": {}, "Data": "bGlzdGVuIDgwOwo="});
    fake.on_json("POST /configs/create", &json!({"ID": ID})).on_json("GET /configs/site.conf", &shown);
    assert_eq!(with_input(&fake, &["config", "create", "site.conf", "-"], b"listen 80;\n").ok(), format!("{ID}\n"));
    let seen = &fake.seen("POST /configs/create")[0];
    assert_eq!(seen.body, json!({"Name": "site.conf", "Labels": {}, "Data": "bGlzdGVuIDgwOwo="}));
    let page = fake.run(&["config", "inspect", "--pretty", "site.conf"]).ok();
    assert!(page.ends_with("Updated at:     2026-11-22T11:43:19Z\nData:\nlisten 80;\n"), "{page}");
    let error = with_input(&fake, &["config", "create", "a", "-"], &[b'x'; 1_024_000]).failed();
    assert_eq!(error, "Error: standard input holds too much: the data of a config has fewer than 1024000 bytes\n");
}

/// A swarmd with some objects, whose names begin alike.
fn with_objects() -> Fake {
    let fake = Fake::start();
    let (mut longer, mut site) = (object("tls.key.old"), object("site.conf"));
    (longer["ID"], site["ID"]) = (json!("longer"), json!("2mpkrntjpw6aif4hho0w74222"));
    fake.on_json("GET /secrets", &json!([longer, object("tls.key")])).on_json("GET /configs", &json!([site]));
    fake
}

#[test]
fn a_new_service_names_objects_by_name_and_id() {
    let fake = with_objects();
    fake.on_json("POST /services/create", &json!({"ID": "s1"})).on_json("POST /swarmd/plan", &json!({}));
    let files = ["--secret", "tls.key", "--config", "source=site.conf,target=/etc/site.conf,uid=7,mode=0440", "x"];
    let line = [&["service", "create", "-d", "--no-resolve-image"], &files[..]].concat();
    assert_eq!(fake.run(&line).ok(), "s1\n");
    assert_eq!(fake.seen("GET /secrets")[0].query["filters"], r#"{"name":{"tls.key":true}}"#);
    let container = &fake.seen("POST /services/create")[0].body["TaskTemplate"]["ContainerSpec"];
    assert_eq!(
        container["Secrets"],
        json!([{"File": {"Name": "tls.key", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": ID, "SecretName": "tls.key"}])
    );
    assert_eq!(
        container["Configs"],
        json!([{"File": {"Name": "/etc/site.conf", "UID": "7", "GID": "0", "Mode": 288},
            "ConfigID": "2mpkrntjpw6aif4hho0w74222", "ConfigName": "site.conf"}])
    );
    fake.run(&[&["service", "plan", "create", "--no-resolve-image"], &files[..]].concat());
    assert_eq!(&fake.seen("POST /swarmd/plan")[0].body["Spec"]["TaskTemplate"]["ContainerSpec"], container);

    // The beginning of a name is not the name.
    let error = fake.run(&["service", "create", "--secret", "tls", "x"]).failed();
    assert_eq!(error, "Error: secret not found: tls\n`swarmctl secret ls` lists all secrets.\n");
    let error = fake.run(&["service", "create", "--config", "SITE.conf", "x"]).failed();
    assert_eq!(error, "Error: config not found: SITE.conf\n`swarmctl config ls` lists all configs.\n");
    assert_eq!(fake.seen("POST /services/create").len(), 1);
    let asked = fake.seen("GET /secrets").len();
    fake.run(&["service", "create", "-d", "--no-resolve-image", "x"]).ok();
    assert_eq!(fake.seen("GET /secrets").len(), asked);
}

#[test]
fn the_objects_of_a_service_are_changed() {
    let fake = with_objects();
    let web = recorded("service_inspect");
    let update = format!("POST /services/{}/update", web["ID"].as_str().unwrap());
    fake.on_json("GET /services/web", &web).on_json("GET /tasks", &json!([])).on_json(&update, &json!({}));
    let line =
        ["service", "update", "-d", "--secret-rm", "sm23027sec", "--secret-add", "source=tls.key,target=sm23027sec"];
    let ran = fake.run(&[&line[..], &["--config-rm", "/cfg/sm23027cfg", "--config-rm", "nope", "web"]].concat());
    assert_eq!((ran.code, &*ran.stderr), (Some(0), "Warning: --config-rm nope: the service has none\n"));
    let mut expected = web["Spec"].clone();
    let container = expected["TaskTemplate"]["ContainerSpec"].as_object_mut().unwrap();
    container.remove("Configs");
    container["Secrets"][0]["SecretName"] = json!("tls.key");
    container["Secrets"][0]["SecretID"] = json!(ID);
    assert_eq!(fake.seen(&update)[0].body, expected);
    let error = fake.run(&["service", "update", "--config-add", "nope", "web"]).failed();
    assert!(error.starts_with("Error: config not found: nope\n"), "{error}");
    assert_eq!(fake.seen(&update).len(), 1);
}
