use super::*;

#[test]
fn hosts_have_addresses_of_their_own() {
    assert_eq!(Host::new(1).peer_address(), "10.77.0.11:2377");
    assert_eq!(Host::new(20).ip(), Ipv4Addr::new(10, 77, 0, 30));
}

#[test]
fn a_child_that_another_thread_started_is_a_child() {
    let started = std::thread::spawn(|| {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found = children(std::process::id()).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        found
    });
    assert!(started.join().unwrap());
}

#[test]
fn a_process_id_of_somebody_else_is_no_host() {
    assert!(Host::new(99).pid().is_none());
    assert!(Host::new(99).enter().unwrap_err().to_string().contains("hosts start 99"));
}
