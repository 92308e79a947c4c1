//! Whose a log line is: `web.1.6oracss3v9w3@node    | text`.

use std::collections::BTreeMap;

use swarm_docker_api::{logs::LogLine, view::TaskView};

use crate::{
    client::{Client, ClientError, Query, segment},
    names::Names,
    units::{one_line, short_id},
};

/// Between a name and a line.
const SEPARATOR: &str = "    | ";
/// Details that say whose a line is, and are shown as names.
const OWN_DETAILS: &str = "com.docker.swarm.";
/// Colours of names, in the order that tasks first write.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// How lines are marked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Show task ids.
    pub(crate) task_ids: bool,
    /// Cut them.
    pub(crate) cut: bool,
    /// Show other details of lines.
    pub(crate) details: bool,
    /// Use colours.
    pub(crate) colour: bool,
}

/// The marks of all tasks that have written.
pub(crate) struct Prefixes {
    options: Options,
    services: Names,
    nodes: Names,
    slot_digits: usize,
    by_task: BTreeMap<String, String>,
}

impl Prefixes {
    /// For a service with so many slots.
    pub(crate) fn new(options: Options, services: Names, nodes: Names, slots: u64) -> Self {
        Self { options, services, nodes, slot_digits: slots.to_string().len(), by_task: BTreeMap::new() }
    }

    /// The line as it is shown. A task is looked up when it first writes.
    ///
    /// # Errors
    /// swarmd does not answer. A task that is gone is shown by its id.
    pub(crate) async fn line(&mut self, client: &Client, line: &LogLine) -> Result<Vec<u8>, ClientError> {
        let task_id = line.task_id().unwrap_or_default();
        if !self.by_task.contains_key(task_id) {
            let slot = match client.get::<TaskView>(&format!("/tasks/{}", segment(task_id)), Query::new()).await {
                Ok(task) => Some(task.slot.unwrap_or(0)),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            let mark = self.mark(line, slot);
            self.by_task.insert(task_id.to_owned(), mark);
        }
        Ok(self.marked(line, &self.by_task[task_id]))
    }

    fn mark(&self, line: &LogLine, slot: Option<u64>) -> String {
        let service = self.services.of(line.service_id().unwrap_or_default());
        let node = self.nodes.of(line.node_id().unwrap_or_default());
        let slot = slot.map_or_else(|| "?".to_owned(), |slot| slot.to_string());
        let mut mark = format!("{service}.{slot}");
        if self.options.task_ids {
            let id = line.task_id().unwrap_or_default();
            mark.push('.');
            mark.push_str(if self.options.cut { short_id(id) } else { id });
        }
        let padding = " ".repeat(self.slot_digits.saturating_sub(slot.len()));
        let mark = one_line(&format!("{mark}@{node}")) + &padding;
        match self.options.colour {
            true => format!("\x1b[{}m{mark}{SEPARATOR}\x1b[0m", COLOURS[self.by_task.len() % COLOURS.len()]),
            false => mark + SEPARATOR,
        }
    }

    fn marked(&self, line: &LogLine, mark: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(mark.len() + line.text.len() + 40);
        if let Some(timestamp) = &line.timestamp {
            bytes.extend_from_slice(timestamp.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(mark.as_bytes());
        if self.options.details {
            let others = line.details.iter().filter(|(key, _)| !key.starts_with(OWN_DETAILS));
            let details: Vec<String> = others.map(|(key, value)| format!("{key}={value}")).collect();
            if !details.is_empty() {
                bytes.extend_from_slice(details.join(",").as_bytes());
                bytes.push(b' ');
            }
        }
        bytes.extend_from_slice(&line.text);
        if !line.text.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line() -> LogLine {
        let payload = "2026-11-22T11:43:21.643095247Z com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,\
                       com.docker.swarm.task.id=6oracss3v9w3hjx677ihgiivw,tag=x hello\n";
        LogLine::parse(Bytes::from_static(payload.as_bytes()), true, true).unwrap()
    }

    fn shown(options: Options, slot: Option<u64>) -> String {
        let names = Names::from_iter([("s1".into(), "web".into()), ("n1".into(), "vm".into())]);
        let prefixes = Prefixes::new(options, names.clone(), names, 12);
        String::from_utf8(prefixes.marked(&line(), &prefixes.mark(&line(), slot))).unwrap()
    }

    #[test]
    fn lines_are_marked() {
        let plain = Options { task_ids: true, cut: true, details: false, colour: false };
        let time = "2026-11-22T11:43:21.643095247Z";
        assert_eq!(shown(plain, Some(1)), format!("{time} web.1.6oracss3v9w3@vm     | hello\n"));
        assert_eq!(
            shown(Options { cut: false, details: true, ..plain }, Some(12)),
            format!("{time} web.12.6oracss3v9w3hjx677ihgiivw@vm    | tag=x hello\n")
        );
        assert_eq!(shown(Options { task_ids: false, ..plain }, None), format!("{time} web.?@vm     | hello\n"));
        assert!(shown(Options { colour: true, ..plain }, Some(1)).contains("\x1b[36mweb.1."));
    }
}
