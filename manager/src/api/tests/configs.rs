//! Configs: what they have and secrets have not.

use super::*;

const DATA: &str = "bGlzdGVuIDgwOwo=";

#[tokio::test]
async fn a_config_is_made_shown_with_its_data_and_removed() {
    let plane = cluster();
    let body = json!({"Name": "nginx.conf", "Labels": {"k": "v"}, "Data": DATA, "Templating": {"Name": "golang"}});
    assert_eq!(post(&plane, "/configs/create", &body).await.ok().status, 201);
    assert_eq!(get(&plane, "/configs/nginx.conf").await.ok().json()["Spec"], body);
    // Each kind has names of its own.
    post(&plane, "/secrets/create", &json!({"Name": "nginx.conf", "Data": DATA})).await.ok();
    assert_eq!(post(&plane, "/configs/create", &body).await.error(409), "config nginx.conf already exists");
    let version = &get(&plane, "/configs/nginx.conf").await.json()["Version"]["Index"];
    let update = format!("/configs/nginx.conf/update?version={version}");
    let error = post(&plane, &update, &json!({"Name": "nginx.conf", "Data": "eA=="})).await.error(400);
    assert!(error.starts_with("only updates to Labels are allowed"), "{error}");
    post(&plane, &update, &json!({"Name": "nginx.conf", "Data": DATA})).await.ok();
    assert_eq!(filtered(&plane, "/configs", json!({"name": ["ng"]})).await.all("/Spec/Data"), [DATA]);
    let error = filtered(&plane, "/configs", json!({"names": ["x"]})).await.error(400);
    assert_eq!(error, "invalid filter 'names' (possible are id, name, label)");
    assert_eq!(delete(&plane, "/configs/nginx.conf").await.status, 204);
    assert_eq!(get(&plane, "/configs/nginx.conf").await.error(404), "config nginx.conf not found");
    assert_eq!(get(&plane, "/secrets").await.all("/Spec/Name"), ["nginx.conf"]);
    // Two braces.
    let broken = json!({"Name": "broken", "Data": "e3s=", "Templating": {"Name": "golang"}});
    let error = post(&plane, "/configs/create", &broken).await.error(400);
    assert_eq!(error, "invalid template in Data, line 1: '}}' is missing");
}

#[tokio::test]
async fn the_data_of_a_config_has_a_limit() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let plane = cluster();
    assert_eq!(swarm_template::Limits::PAYLOAD.bytes_max + 1, swarm_model::CONFIG_BYTES_LIMIT);
    for (size, status) in [(0, 400), (1, 201), (1_023_999, 201), (1_024_000, 400)] {
        let body = json!({"Name": format!("of-{size}"), "Data": BASE64_STANDARD.encode(vec![7; size])});
        let answer = post(&plane, "/configs/create", &body).await;
        assert_eq!(answer.status, status);
        if status == 400 {
            let limit = "config data must be larger than 0 and less than 1024000 bytes: these are";
            assert_eq!(answer.error(400), format!("{limit} {size}"));
        }
    }
}
