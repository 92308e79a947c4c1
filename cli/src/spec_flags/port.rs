//! `--publish`, in its short and its long form.

use swarm_model::{PortConfig, PortProtocol, PublishMode};

use super::csv;

/// Reads `[PUBLISHED:]TARGET[/PROTOCOL]` with ranges, or `target=…,published=…,protocol=…,mode=…`.
///
/// # Errors
/// Says what is wrong, with the text.
pub(super) fn parse_ports(text: &str) -> Result<Vec<PortConfig>, String> {
    if text.contains('=') { long(text).map(|port| vec![port]) } else { short(text) }
}

fn long(text: &str) -> Result<PortConfig, String> {
    let mut config = PortConfig::default();
    for (key, value) in csv::pairs(text)? {
        let value = value.unwrap_or_default();
        match key.as_str() {
            "target" => config.target_port = port(&value, text)?,
            "published" => config.published_port = if value == "0" { 0 } else { port(&value, text)? },
            "protocol" => config.protocol = protocol(&value, text)?,
            "mode" => {
                config.publish_mode = match value.as_str() {
                    "ingress" => PublishMode::Ingress,
                    "host" => PublishMode::Host,
                    _ => return Err(format!("mode '{value}' in '{text}' must be host or ingress")),
                }
            }
            "name" => config.name = value,
            _ => {
                return Err(format!("unknown key '{key}' in '{text}'; there are target, published, protocol, mode"));
            }
        }
    }
    if config.target_port == 0 {
        return Err(format!("'{text}' has no target; write for example published=80,target=8080,mode=host"));
    }
    Ok(config)
}

fn short(text: &str) -> Result<Vec<PortConfig>, String> {
    let (ports, protocol_name) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(protocol_name, text)?;
    let parts: Vec<&str> = ports.split(':').collect();
    let (published, target) = match parts.as_slice() {
        [target] => (None, *target),
        [published, target] => (Some(*published).filter(|p| !p.is_empty()), *target),
        _ => {
            return Err(format!("'{text}' names a host address, which a service cannot have; write PUBLISHED:TARGET"));
        }
    };
    let (target_from, target_to) = range(target, text)?;
    let published = match published {
        Some(published) => Some(range(published, text)?),
        None => None,
    };
    if published.is_some_and(|(from, to)| to - from != target_to - target_from) {
        return Err(format!("the two ranges in '{text}' differ in length"));
    }
    let config = |target_port: u16| PortConfig {
        protocol,
        target_port,
        published_port: published.map_or(0, |(from, _)| from + (target_port - target_from)),
        ..PortConfig::default()
    };
    Ok((target_from..=target_to).map(config).collect())
}

fn range(ports: &str, text: &str) -> Result<(u16, u16), String> {
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let (from, to) = (port(from, text)?, port(to, text)?);
    if from > to { Err(format!("the range '{ports}' in '{text}' runs backwards")) } else { Ok((from, to)) }
}

fn port(number: &str, text: &str) -> Result<u16, String> {
    let number_ok = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    match number.parse::<u16>() {
        Ok(port) if port > 0 && number_ok => Ok(port),
        _ => Err(format!("'{number}' in '{text}' is not a port, 1 to 65535")),
    }
}

fn protocol(name: &str, text: &str) -> Result<PortProtocol, String> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Ok(PortProtocol::Sctp),
        _ => Err(format!("protocol '{name}' in '{text}' must be tcp, udp or sctp")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(text: &str) -> Vec<(u16, u16, &'static str)> {
        let ports = parse_ports(text).unwrap_or_else(|e| panic!("{e}"));
        ports.iter().map(|p| (p.published_port, p.target_port, p.protocol.as_str())).collect()
    }

    #[test]
    fn the_short_form() {
        assert_eq!(numbers("80"), [(0, 80, "tcp")]);
        assert_eq!(numbers(":80"), [(0, 80, "tcp")]);
        assert_eq!(numbers("8080:80/UDP"), [(8080, 80, "udp")]);
        assert_eq!(numbers("8000-8001:80-81"), [(8000, 80, "tcp"), (8001, 81, "tcp")]);
        assert_eq!(parse_ports("80").unwrap()[0].publish_mode, PublishMode::Ingress);
    }

    #[test]
    fn the_long_form() {
        let port = &parse_ports("published=8080,target=80,protocol=udp,mode=host").unwrap()[0];
        assert_eq!((port.published_port, port.target_port), (8080, 80));
        assert_eq!((port.protocol, port.publish_mode), (PortProtocol::Udp, PublishMode::Host));
        assert_eq!(numbers("published=0,target=80"), [(0, 80, "tcp")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "is not a port"),
            ("0", "'0'"),
            ("+80", "'+80'"),
            ("65536", "'65536'"),
            ("127.0.0.1:80:80", "host address"),
            ("80/icmp", "'icmp'"),
            ("8001-8000", "backwards"),
            ("8000-8002:80-81", "differ in length"),
            ("published=80", "no target"),
            ("target=80,mode=mesh", "'mesh'"),
            ("target=80,hello=1", "unknown key 'hello'"),
        ] {
            assert!(parse_ports(text).is_err_and(|e| e.contains(part)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_ports_or_refused(text in "\\PC{0,20}|[0-9:/-]{0,16}|(target|published|mode)=[0-9a-z,=]{0,16}") {
            if let Ok(ports) = parse_ports(&text) {
                prop_assert!(!ports.is_empty() && ports.iter().all(|p| p.target_port > 0));
            }
        }
    }
}
