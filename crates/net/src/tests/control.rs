use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::place::*;
use crate::protocol::{Caller, FromNet, NET_PROTOCOL, ToNet};

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_and_nothing_else() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    let hello = rmp_serde::to_vec_named(&ToNet::Hello { protocol: NET_PROTOCOL, caller: Caller::Swarmd }).unwrap();
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], &[0; 4], body].concat();
    let wrong = rmp_serde::to_vec_named(&ToNet::Sync(1)).unwrap();
    for garbage in [frame(b"no message"), frame(&wrong), vec![0xff; 8], frame(&[]), b"GET / HTTP/1.1\r\n\r\n".to_vec()]
    {
        let mut stream = UnixStream::connect(host.socket()).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        // The connection is closed; bytes that were not read make the end a reset.
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    swarmd.sync().await;
    // A swarmd that speaks garbage is left, and its words before that hold.
    let mut stream = UnixStream::connect(host.socket()).await.unwrap();
    stream.write_all(&[frame(&hello), frame(b"no message")].concat()).await.unwrap();
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert!(host.netns.has_link(DEVICE));
    Swarmd::connect(&host.socket()).await.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let stream = UnixStream::connect(host.socket()).await.unwrap();
    let (mut sender, mut receiver) = swarm_wire::channel::<_, ToNet, FromNet>(stream);
    sender.send(&ToNet::Hello { protocol: NET_PROTOCOL + 1, caller: Caller::Swarmd }).await.unwrap();
    soon(receiver.recv()).await.unwrap();
    let Ok(Some(FromNet::Refused { reason })) = soon(receiver.recv()).await else { panic!("it is not refused") };
    assert!(reason.contains("version 2"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_a_new_connection_leaves_out_is_removed_when_all_is_said() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut first = host.swarmd().await;
    first.sync().await;
    let mut second = Swarmd::connect(&host.socket()).await;
    // The connection before is closed.
    while first.hear().await.is_some() {}
    second.say(ToNet::Configure(host.configuration("c1"))).await;
    second.sync().await;
    assert!(host.netns.has_link(DEVICE), "the words before hold until all is said");
    second.say(ToNet::Complete).await;
    second.sync().await;
    assert!(!host.netns.has_link(DEVICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_an_earlier_process_left_is_removed_when_all_is_said() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    host.swarmd().await.sync().await;
    assert!(host.netns.has_link(DEVICE));
    let _swarmd = host.start_again_without_networks().await;
    until(|| !host.netns.has_link(DEVICE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_leaves_nothing() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let client = host.container(10);
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    swarmd.sync().await;
    assert!(client.has_table());
    swarmd.say(ToNet::Stop { remove: true }).await;
    host.has_ended().await;
    assert!(!host.netns.has_link(DEVICE) && host.netns.has_link(BRIDGE) && !client.has_table());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
        let _ = rmp_serde::from_slice::<ToNet>(&bytes);
        let _ = rmp_serde::from_slice::<FromNet>(&bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_part_of_the_kernel_says_so() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    host.start_again_without("vxlan").await;
    let mut swarmd = host.swarmd().await;
    swarmd.warned(|warnings| warnings.iter().any(|text| text.contains("there is no vxlan"))).await;
    assert!(!host.netns.has_link(DEVICE));

    let client = host.container(10);
    client.show();
    for part in ["nft", "setns"] {
        host.start_again_without(part).await;
        let mut swarmd = host.swarmd().await;
        swarmd.say(ToNet::PutContainer(client.record(None))).await;
        let pick = |message| if let FromNet::NotReady { reason, .. } = message { Some(reason) } else { None };
        let reason = swarmd.hear_of(pick).await;
        assert!(reason.contains(&format!("there is no {part}")), "{reason}");
        let error = crate::resolver_sockets(&host.socket(), &client.id).await.unwrap_err();
        assert!(error.to_string().contains(&format!("there is no {part}")), "{error}");
        // Nobody waits for tables that cannot be there.
        swarmd.sync_without_tables().await;
    }
    assert!(!client.has_table());
}
