//! Tests of reading the system's tables of sockets.

use proptest::prelude::*;

use super::*;

const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1145 1 00000000 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 00000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 78 1 00000000 100 0 0 10 0
";

#[test]
#[cfg(target_endian = "little")]
fn sockets_are_found_by_address_and_port() {
    let find = |port, addr: [u8; 4]| inodes(TABLE, TCP_LISTENING, port, addr.into());
    assert_eq!(find(8080, [127, 0, 0, 1]), [77]);
    assert_eq!(find(8080, [0, 0, 0, 0]), [77]);
    assert_eq!(find(8080, [10, 0, 0, 1]), [0; 0]);
    assert_eq!(find(2024, [10, 0, 0, 1]), [1145]);
    let v6 = address("00000000000000000000000001000000:0050").unwrap();
    assert_eq!(v6, (Ipv6Addr::LOCALHOST.into(), 80));
}

#[test]
fn a_port_of_this_process_is_found() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let found = holder_of(PortProtocol::Tcp, addr.port(), addr.ip()).unwrap();
    assert!(found.ends_with(&format!("(pid {})", std::process::id())), "{found}");
}

proptest! {
    #[test]
    fn any_table_is_read(text in "(.|\n){0,200}", fields in prop::collection::vec("[0-9A-Fa-f:é]{0,40}", 0..12)) {
        inodes(&text, TCP_LISTENING, 80, Ipv4Addr::UNSPECIFIED.into());
        let line = format!("\n{}", fields.join(" "));
        inodes(&line, TCP_LISTENING, 80, Ipv4Addr::UNSPECIFIED.into());
    }
}
