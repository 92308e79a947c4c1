//! Published ports in tables.

use swarm_model::{PortConfig, PublishMode};

/// Ingress ports as `service ls` shows them, neighbours joined: `*:80-81->8080-8081/tcp`.
pub(crate) fn ingress(ports: &[PortConfig]) -> String {
    let mut ports: Vec<(&str, u16, u16)> = ports
        .iter()
        .filter(|p| p.publish_mode == PublishMode::Ingress)
        .map(|p| (p.protocol.as_str(), p.target_port, p.published_port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    // (protocol, target, published, how many more)
    let mut ranges: Vec<(&str, u16, u16, u16)> = Vec::new();
    for (protocol, target, published) in ports {
        match ranges.last_mut() {
            Some((p, t, q, more))
                if *p == protocol
                    && u32::from(*t) + u32::from(*more) + 1 == u32::from(target)
                    && u32::from(*q) + u32::from(*more) + 1 == u32::from(published) =>
            {
                *more += 1;
            }
            _ => ranges.push((protocol, target, published, 0)),
        }
    }
    let range = |from: u16, more: u16| if more == 0 { from.to_string() } else { format!("{from}-{}", from + more) };
    let texts = ranges.into_iter().map(|(protocol, target, published, more)| {
        format!("*:{}->{}/{protocol}", range(published, more), range(target, more))
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Open ports of a task as `service ps` shows them. Docker lists each twice, for IPv4 and IPv6; here it is once.
pub(crate) fn host(ports: &[PortConfig]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for port in ports {
        let text = format!("*:{}->{}/{}", port.published_port, port.target_port, port.protocol.as_str());
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(published_port: u16, target_port: u16, publish_mode: PublishMode) -> PortConfig {
        PortConfig { published_port, target_port, publish_mode, ..PortConfig::default() }
    }

    #[test]
    fn neighbours_are_joined() {
        let mut ports = vec![
            port(8081, 81, PublishMode::Ingress),
            port(8080, 80, PublishMode::Ingress),
            port(9000, 90, PublishMode::Ingress),
            port(7000, 70, PublishMode::Host),
        ];
        assert_eq!(ingress(&ports), "*:8080-8081->80-81/tcp, *:9000->90/tcp");
        ports.push(ports[3].clone());
        assert_eq!(host(&ports[3..]), "*:7000->70/tcp");
        assert_eq!(ingress(&[]), "");
    }

    proptest! {
        #[test]
        fn any_ports_are_shown(list in proptest::collection::vec((0..=u16::MAX, 65530..=u16::MAX), 0..6)) {
            let ports: Vec<_> = list.into_iter().map(|(p, t)| port(p, t, PublishMode::Ingress)).collect();
            prop_assert_eq!(ingress(&ports).is_empty(), ports.is_empty());
        }
    }
}
