//! Attachments: containers that are no tasks, in networks of the swarm.

use std::cell::RefCell;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    engine::{CleanUp, Engine, networks_alone},
    wait::until,
};

const IMAGE: &str = "hello:1";

/// Containers of a test, which go at its end, also when it failed.
struct Containers<'a> {
    engine: &'a Engine,
    ids: RefCell<Vec<String>>,
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        self.ids.borrow().iter().for_each(|id| self.engine.remove(id));
    }
}

impl Containers<'_> {
    /// Makes and starts a container in a network, as `docker run -d --network` does.
    fn run(&self, daemon: &Daemon, name: &str, network: &str, settings: Value, args: &[&str]) -> String {
        let id = self.create(daemon, name, network, settings, args).expect("a container");
        daemon.call("POST", &format!("/containers/{id}/start"), None).expect("it starts");
        id
    }

    fn create(
        &self,
        daemon: &Daemon,
        name: &str,
        network: &str,
        settings: Value,
        args: &[&str],
    ) -> Result<String, String> {
        let body = create_body(network, settings, args);
        let made = daemon.call("POST", &format!("/containers/create?name={name}"), Some(&body))?;
        let id = made["Id"].as_str().expect("an id").to_owned();
        self.ids.borrow_mut().push(id.clone());
        Ok(id)
    }
}

fn create_body(network: &str, settings: Value, args: &[&str]) -> Value {
    json!({
        "Image": IMAGE, "Cmd": args,
        "HostConfig": { "NetworkMode": network, "Init": true },
        "NetworkingConfig": { "EndpointsConfig": { network: settings } },
    })
}

fn create_network(cluster: &Cluster, name: &str, subnet: &str, attachable: bool) {
    let body = json!({
        "Name": name, "Driver": "overlay", "Attachable": attachable, "IPAM": { "Config": [{ "Subnet": subnet }] },
    });
    cluster.manager().call("POST", "/networks/create", Some(&body)).expect("a network");
}

/// Waits until a container has ended, and returns its exit code.
fn exit_code(engine: &Engine, id: &str) -> i64 {
    until("the container has ended", || {
        let state = engine.inspect(id)["State"].clone();
        match state["Status"].as_str() {
            Some("exited") => Ok(state["ExitCode"].as_i64().expect("an exit code")),
            _ => Err(state.to_string()),
        }
    })
}

/// The address of a container in the engine's part of a network.
fn addr(engine: &Engine, id: &str, network: &str) -> String {
    let container = engine.inspect(id);
    let addr = container["NetworkSettings"]["Networks"][network]["IPAddress"].as_str();
    addr.unwrap_or_else(|| panic!("{container}")).to_owned()
}

/// Waits until somebody in the network gets an answer at a place, or gets none.
fn wait_asked(containers: &Containers<'_>, daemon: &Daemon, place: &str, is_answered: bool) {
    until(&format!("{place} answers: {is_answered}"), || {
        let id = containers.run(daemon, "", "tools", json!({}), &["ask", place]);
        match exit_code(containers.engine, &id) {
            code if (code == 0) == is_answered => Ok(()),
            code => Err(format!("exit code {code}")),
        }
    });
}

#[test]
fn containers_that_are_no_tasks_join_attachable_networks() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let _alone = networks_alone();
    let mut clean_up = CleanUp::new(&engine);
    let mut cluster = Cluster::start(&engine.address(), 3);
    clean_up.note(&cluster);
    let containers = Containers { engine: &engine, ids: RefCell::default() };
    create_network(&cluster, "tools", "10.214.1.0/24", true);
    create_network(&cluster, "closed", "10.214.2.0/24", false);
    let mut web = service("web", 2);
    web["TaskTemplate"]["Networks"] = json!([{ "Target": "tools" }]);
    cluster.create(&web);
    cluster.wait_settled(&[("web".to_owned(), 2)].into());

    // Refused: another network, an address that the network has not or that somebody has, a hardware address.
    for daemon in &cluster.nodes {
        let refuse = |status, network: &str, settings| {
            daemon.refused(status, "POST", "/containers/create", Some(&create_body(network, settings, &["ask"])))
        };
        let said = refuse(403, "closed", json!({}));
        let expected = "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not \
                        manually attachable";
        assert_eq!(said, expected);
        let said = refuse(409, "tools", json!({ "IPAMConfig": { "IPv4Address": "10.214.9.9" } }));
        assert!(said.contains("none of its subnets"), "{said}");
        let said = refuse(409, "tools", json!({ "IPAMConfig": { "IPv4Address": "10.214.1.2" } }));
        assert!(said.contains("10.214.1.2") && said.contains("already in use"), "{said}");
        let said = refuse(400, "tools", json!({ "MacAddress": "02:42:ac:11:00:02" }));
        assert!(said.contains("MAC address"), "{said}");
    }

    // Containers of each node find the service and its tasks, and each other, by name and alias.
    let (manager, worker) = (&cluster.nodes[0], &cluster.nodes[1]);
    for daemon in [manager, worker] {
        for place in ["web:8080", "tasks.web:8080", "web.1:8080"] {
            wait_asked(&containers, daemon, place, true);
        }
    }
    let shop = containers.run(worker, "att-shop", "tools", json!({ "Aliases": ["store"] }), &[]);
    let shop_addr = addr(&engine, &shop, "tools");
    assert!(shop_addr.starts_with("10.214.1."), "{shop_addr}");
    for place in ["att-shop:8080", "store:8080"] {
        wait_asked(&containers, &cluster.nodes[2], place, true);
    }
    let said = manager.refused(400, "DELETE", "/networks/tools", None);
    assert!(said.contains("network tools is in use by"), "{said}");

    // Stopped, it has no name; started again, it has.
    worker.call("POST", "/containers/att-shop/stop?t=0", None).expect("it stops");
    wait_asked(&containers, manager, "store:8080", false);
    worker.call("POST", "/containers/att-shop/start", None).expect("it starts");
    assert_eq!(addr(&engine, &shop, "tools"), shop_addr);
    wait_asked(&containers, manager, "store:8080", true);

    // A restart of the daemon changes nothing.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    cluster.wait_ready();
    wait_asked(&containers, &cluster.nodes[2], "store:8080", true);
    assert_eq!(addr(&engine, &shop, "tools"), shop_addr);

    // A container that runs is connected and disconnected.
    let (manager, worker) = (&cluster.nodes[0], &cluster.nodes[1]);
    let late = containers.run(worker, "att-late", "bridge", json!({}), &[]);
    let connect = json!({ "Container": "att-late", "EndpointConfig": { "Aliases": ["later"] } });
    worker.call("POST", "/networks/tools/connect", Some(&connect)).expect("it is connected");
    assert!(addr(&engine, &late, "tools").starts_with("10.214.1."));
    wait_asked(&containers, manager, "later:8080", true);
    worker.call("POST", "/networks/tools/disconnect", Some(&json!({ "Container": "att-late" }))).expect("it is not");
    wait_asked(&containers, manager, "later:8080", false);
    let said = worker.refused(403, "POST", "/networks/closed/connect", Some(&json!({ "Container": "att-late" })));
    assert!(said.contains("not manually attachable"), "{said}");

    // With the last container and the service the networks can go.
    worker.call("DELETE", "/containers/att-shop?force=1", None).expect("it is removed");
    manager.call("DELETE", "/services/web", None).expect("it is removed");
    until("the network is removed", || manager.call("DELETE", "/networks/tools", None).map(drop));
}
