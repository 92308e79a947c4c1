//! Tests of the limits of a service.

use std::net::Ipv6Addr;

use super::*;

fn rate(most: u32) -> NonZeroU32 {
    NonZeroU32::new(most).unwrap()
}

fn client(number: u128) -> IpAddr {
    Ipv6Addr::from(number).into()
}

#[test]
fn a_client_gets_its_rate_at_once_and_then_a_token_at_a_time() {
    let (mut recent, begin) = (Recent::default(), Instant::now());
    let mut allowed = |number, at_ms| recent.allow(client(number), rate(10), begin + Duration::from_millis(at_ms));
    assert_eq!((0..50).filter(|_| allowed(1, 0)).count(), 10);
    assert!(allowed(2, 0), "another client has a bucket of its own");
    assert!(!allowed(1, 99));
    assert!(allowed(1, 100) && !allowed(1, 199));
    // Over the end of a period, and after a long pause.
    assert_eq!((0..50).filter(|_| allowed(1, 1_150)).count(), 10);
    assert!(!allowed(1, 1_200) && allowed(1, 1_250));
    assert_eq!((0..50).filter(|_| allowed(1, 90_000)).count(), 10);
}

#[test]
fn in_any_second_a_client_gets_at_most_twice_its_rate() {
    let (mut recent, begin) = (Recent::default(), Instant::now());
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let allowed: Vec<_> = (0..10_000).filter(|ms| recent.allow(client(1), rate(7), at(*ms))).collect();
    assert!((70..=77).contains(&allowed.len()), "{}", allowed.len());
    for begin in 0..9_000 {
        let number = allowed.iter().filter(|ms| (begin..begin + 1_000).contains(*ms)).count();
        assert!(number <= 14, "{number} in the second from {begin} ms");
    }
}

#[test]
fn a_flood_of_addresses_takes_bounded_memory_and_keeps_nobody_out() {
    let (mut recent, begin) = (Recent::default(), Instant::now());
    for number in 0..3 * ADDRESSES_MAX as u128 {
        assert!(recent.allow(client(number), rate(1), begin + Duration::from_micros(number as u64)));
        assert!(recent.present.len() <= ADDRESSES_MAX && recent.past.len() <= ADDRESSES_MAX);
    }
    assert!(!recent.allow(client(0), rate(1), begin + Duration::from_millis(500)));
}

#[test]
fn open_connections_are_limited_and_a_refusal_takes_no_token() {
    let limits = Arc::new(Limits::default());
    let ingress = Ingress { connections_max: Some(rate(2)), rate_max: Some(rate(3)), ..Ingress::default() };
    let admit = |number| limits.admit(&ingress, client(number));
    let open = [admit(1), admit(1)];
    assert!(open.iter().all(Option::is_some));
    assert!(admit(1).is_none() && admit(2).is_none());
    drop(open);
    assert!(admit(1).is_some() && admit(1).is_none());
    let expected =
        ServiceStats { service: ServiceId(7), connections: 0, over_connections: 2, over_rate: 1, bad_headers: 0 };
    assert_eq!(limits.stats(ServiceId(7)), Some(expected));
    assert_eq!(Limits::default().stats(ServiceId(7)), None);
}
