//! Tests of datagrams on streams.

use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::datagrams::{self, DATAGRAM_BYTES_MAX};

proptest! {
    #[test]
    fn datagrams_arrive_as_they_were_sent(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut a, mut b) = duplex(64);
            let sending = async {
                for datagram in &sent {
                    datagrams::write(&mut a, datagram).await.unwrap();
                }
                a.shutdown().await.unwrap();
            };
            let receiving = async {
                for datagram in &sent {
                    assert_eq!(datagrams::read(&mut b).await.unwrap().unwrap().rest(), datagram);
                }
                assert!(datagrams::read(&mut b).await.unwrap().is_none());
            };
            tokio::join!(sending, receiving);
        });
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut a, mut b) = duplex(1 << 10);
            a.write_all(&bytes).await.unwrap();
            a.shutdown().await.unwrap();
            while let Ok(Some(_)) = datagrams::read(&mut b).await {}
        });
    }
}

#[tokio::test]
async fn a_datagram_over_the_limit_is_refused_both_ways() {
    let (mut a, mut b) = duplex(64);
    assert!(datagrams::write(&mut a, &vec![0; DATAGRAM_BYTES_MAX + 1]).await.is_err());
    a.write_all(&[0xff, 0xff]).await.unwrap();
    let error = datagrams::read(&mut b).await.err().unwrap().to_string();
    assert_eq!(error, "a datagram of 65535 bytes is over the limit of 65507");
}
