use super::*;

fn container(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

#[test]
fn a_container_waits_within_its_share_and_that_of_all() {
    let all = Room::new(CONTAINER_WAITING_MAX + 1, 1);
    let shares = Shares::new(all.clone());
    let own: Vec<_> = (0..CONTAINER_WAITING_MAX).map(|_| shares.wait(container(1)).unwrap()).collect();
    assert!(shares.wait(container(1)).is_none());
    // Containers at other sockets wait together with these.
    let other_shares = Shares::new(all);
    let other = other_shares.wait(container(1)).unwrap();
    assert!(shares.wait(container(2)).is_none());
    drop(other);
    let last = shares.wait(container(2)).unwrap();
    drop((own, last));
    assert!(shares.wait(container(1)).is_some());
    let connection = shares.connect(container(1)).unwrap();
    assert!(shares.connect(container(2)).is_none());
    drop(connection);
    assert!(shares.connect(container(2)).is_some());
}

#[test]
fn shares_that_nobody_uses_are_forgotten() {
    let shares = Shares::new(Room::of_all());
    let all: Vec<_> = (0..CONTAINER_CONNECTIONS_MAX).map(|_| shares.connect(container(0)).unwrap()).collect();
    for number in 1..1000 {
        assert!(shares.wait(container(number)).is_some());
    }
    assert!(shares.of_containers.lock().unwrap().len() <= IDLE_SHARES_MAX + 1);
    // A share in use is kept.
    assert!(shares.connect(container(0)).is_none());
    drop(all);
    assert!(shares.connect(container(0)).is_some());
}
