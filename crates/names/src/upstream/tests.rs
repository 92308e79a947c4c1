use std::{fs, sync::Arc};

use hickory_proto::{
    op::{self, Message},
    rr::{Name, RecordType},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, advance},
};

use super::*;
use crate::{
    message::{Received, Transport, read},
    testing::{FakeServer, ID, StillClock, addr, addrs, message, truncated, with_addrs, with_code},
};

fn query() -> Query {
    match read(&message("Example.com.", RecordType::A).to_vec().unwrap(), Transport::Tcp) {
        Received::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

fn upstream(port: u16) -> Arc<Upstream> {
    let nowhere = UpstreamOptions { resolv_conf: "/nowhere".into(), resolved_conf: "/nowhere".into(), port };
    Arc::new(Upstream::new(nowhere))
}

/// The answer that a client gets.
fn ask(upstream: &Arc<Upstream>, nameservers: &[&str]) -> JoinHandle<Option<Message>> {
    let upstream = Arc::clone(upstream);
    let nameservers: Vec<_> = nameservers.iter().map(|text| addr(text)).collect();
    tokio::spawn(async move {
        let query = query();
        let reply = upstream.ask(&query, &nameservers).await?;
        Some(Message::from_vec(&query.pass_on(reply)).unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn forged_answers_are_passed_over() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1", "127.0.0.2"]).await;
    let asked = ask(&upstream(port), &["127.0.0.1"]);
    let (query, peer) = servers[0].query().await;
    assert!(query.recursion_desired);
    let right = with_addrs(query.clone(), [1]);

    let mut other_id = with_addrs(query.clone(), [2]);
    other_id.metadata.id ^= 1;
    servers[0].send(&other_id, peer).await;
    let mut other_question = with_addrs(query.clone(), [3]);
    other_question.queries[0] = op::Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A);
    servers[0].send(&other_question, peer).await;
    servers[0].send(&query, peer).await;
    servers[0].udp.send_to(b"no message", peer).await.unwrap();
    // An answer of another sender.
    servers[1].send(&with_addrs(query, [4]), peer).await;

    servers[0].send(&right, peer).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!((answer.id, addrs(&answer)), (ID, vec![addr("192.0.2.1")]));
}

#[tokio::test(start_paused = true)]
async fn each_query_has_its_own_port() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1"]).await;
    let upstream = upstream(port);
    let both = [ask(&upstream, &["127.0.0.1"]), ask(&upstream, &["127.0.0.1"])];
    let (first, second) = (servers[0].query().await, servers[0].query().await);
    assert_ne!(first.1, second.1);
    servers[0].send(&with_addrs(first.0, [1]), first.1).await;
    servers[0].send(&with_addrs(second.0, [1]), second.1).await;
    for asked in both {
        assert_eq!(asked.await.unwrap().unwrap().id, ID);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_resolver_is_asked_when_one_is_silent_gone_or_unable() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1", "127.0.0.2"]).await;
    let upstream = upstream(port);

    let asked = ask(&upstream, &["127.0.0.1", "127.0.0.2"]);
    servers[0].query().await;
    advance(SERVER_WAIT).await;
    servers[1].answer(|query| with_addrs(query, [1])).await;
    assert_eq!(addrs(&asked.await.unwrap().unwrap()), [addr("192.0.2.1")]);

    // Nobody listens there.
    let asked = ask(&upstream, &["127.0.0.3", "127.0.0.2"]);
    servers[1].answer(|query| with_addrs(query, [2])).await;
    assert_eq!(addrs(&asked.await.unwrap().unwrap()), [addr("192.0.2.2")]);

    let asked = ask(&upstream, &["127.0.0.1", "127.0.0.2"]);
    servers[0].answer(|query| with_code(query, ResponseCode::ServFail)).await;
    servers[1].answer(|query| with_code(query, ResponseCode::NXDomain)).await;
    assert_eq!(asked.await.unwrap().unwrap().response_code, ResponseCode::NXDomain);

    let asked = ask(&upstream, &["127.0.0.1", "127.0.0.3"]);
    servers[0].answer(|query| with_code(query, ResponseCode::Refused)).await;
    assert_eq!(asked.await.unwrap().unwrap().response_code, ResponseCode::Refused);
}

#[tokio::test(start_paused = true)]
async fn silent_resolvers_cost_five_seconds() {
    let names = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let (servers, port) = FakeServer::at(&names).await;
    let started = Instant::now();
    assert!(ask(&upstream(port), &names).await.unwrap().is_none());
    assert_eq!(started.elapsed(), ALL_WAIT);
    for server in &servers[..SERVERS_MAX] {
        server.query().await;
    }
    assert!(servers[SERVERS_MAX].udp.try_recv(&mut [0; 1]).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_is_asked_for_on_tcp() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1"]).await;
    let asked = ask(&upstream(port), &["127.0.0.1"]);
    servers[0].answer(truncated).await;
    servers[0].answer_on_tcp(|query| with_addrs(query, 1..200)).await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!((answer.truncation, answer.answers.len()), (false, 199));

    // A wrong answer on TCP leaves the cut one.
    let asked = ask(&upstream(port), &["127.0.0.1"]);
    servers[0].answer(truncated).await;
    let wrong = |mut query: Message| {
        query.metadata.id ^= 1;
        with_addrs(query, [1])
    };
    servers[0].answer_on_tcp(wrong).await;
    assert!(asked.await.unwrap().unwrap().truncation);
}

#[tokio::test(start_paused = true)]
async fn the_resolvers_of_the_host_follow_its_files() {
    let _clock = StillClock::new();
    let folder = tempfile::tempdir().unwrap();
    let (own, behind) = (folder.path().join("resolv.conf"), folder.path().join("resolved.conf"));
    let host = HostResolvers::new(own.clone(), behind.clone());
    assert!(host.addrs().is_empty());

    // The files are looked at once a second.
    fs::write(&own, "# a comment\nsearch example.com\nnameserver 192.0.2.1\nnonsense\nnameserver 2001:db8::1\n")
        .unwrap();
    assert!(host.addrs().is_empty());
    advance(Duration::from_secs(1)).await;
    assert_eq!(host.addrs(), [addr("192.0.2.1"), addr("2001:db8::1")]);

    // A stub speaks for the resolvers behind it, when they are known.
    fs::write(&own, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
    advance(Duration::from_secs(1)).await;
    assert_eq!(host.addrs(), [addr("127.0.0.53")]);
    fs::write(&behind, "nameserver 192.0.2.2\nnameserver fe80::1%eth0\n").unwrap();
    advance(Duration::from_secs(1)).await;
    assert_eq!(host.addrs(), [addr("192.0.2.2")]);
}

#[tokio::test(start_paused = true)]
async fn the_resolvers_of_the_host_are_asked_for_a_container_without_its_own() {
    let _clock = StillClock::new();
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.2\n").unwrap();
    let (servers, port) = FakeServer::at(&["127.0.0.2"]).await;
    let options = UpstreamOptions { resolv_conf, resolved_conf: "/nowhere".into(), port };
    let asked = ask(&Arc::new(Upstream::new(options)), &[]);
    servers[0].answer(|query| with_addrs(query, [1])).await;
    assert_eq!(addrs(&asked.await.unwrap().unwrap()), [addr("192.0.2.1")]);
    assert!(ask(&upstream(port), &[]).await.unwrap().is_none());
}
