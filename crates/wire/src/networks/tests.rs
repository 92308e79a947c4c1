use proptest::prelude::*;

use super::*;

const NETWORK: ObjectId = ObjectId(7);

fn service(id: u128, name: &str) -> Member {
    let (name, aliases, virtual_addrs) = (name.to_owned(), Vec::new(), Vec::new());
    Member::Service(NetworkServiceRecord { id: ServiceId(id), name, aliases, virtual_addrs })
}

fn put(member: &Member) -> MemberChange {
    MemberChange::Put(Shared::new(member).expect("it can be written"))
}

fn update(full: bool, complete: bool, changes: &[MemberChange]) -> NetworkUpdate {
    let version = TableVersion { revision: 5, digest: 0 };
    NetworkUpdate { network: NETWORK, full, complete, version, changes: changes.to_vec() }
}

fn names(members: &Members) -> Vec<&str> {
    let mut names = Vec::new();
    for member in members.members.values() {
        let Member::Service(service) = member else { panic!("{member:?}") };
        names.push(service.name.as_str());
    }
    names
}

#[test]
fn records_change_when_an_update_is_whole() {
    let mut members = Members::default();
    assert_eq!(members.take(&update(true, false, &[put(&service(1, "a"))])).unwrap(), []);
    assert!(!members.is_whole() && names(&members).is_empty());
    let changed = members.take(&update(false, true, &[put(&service(2, "b"))])).unwrap();
    assert_eq!(changed, [1, 2].map(|id| (MemberKey::Service(ServiceId(id)), None)));
    assert!(members.is_whole());
    let key = MemberKey::Service(ServiceId(1));
    let changed = members.take(&update(false, true, &[put(&service(1, "c")), put(&service(2, "b"))])).unwrap();
    assert_eq!(changed, [(key, Some(service(1, "a")))], "a record that stays is no change");
    // All records anew: those that do not come are gone.
    let changed = members.take(&update(true, true, &[put(&service(2, "b"))])).unwrap();
    assert_eq!(changed, [(key, Some(service(1, "c")))]);
    let whole = members.to_updates(NETWORK);
    let mut other = Members::default();
    whole.iter().for_each(|update| drop(other.take(update).unwrap()));
    assert_eq!(names(&other), ["b"]);
    // A new beginning replaces an update that never ended.
    members.take(&update(false, false, &[MemberChange::Remove(MemberKey::Service(ServiceId(2)))])).unwrap();
    members.take(&update(true, true, &[put(&service(3, "d"))])).unwrap();
    assert_eq!(names(&members), ["d"]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = rmp_serde::from_slice::<NetworkUpdate>(&bytes);
        let _ = rmp_serde::from_slice::<Member>(&bytes);
    }
}
