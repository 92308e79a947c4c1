//! `service logs`

use http_body_util::BodyExt;
use swarm_docker_api::{
    logs::{FrameReader, LogLine, LogStream},
    view::{ServiceView, TaskView, Time},
};
use swarm_model::{ServiceMode, Timestamp};

use super::{
    change::tasks_of,
    follow::{ATTEMPTS_MAX, PAUSE, Shown},
    no_such_service,
};
use crate::{
    client::{Query, segment},
    clock,
    context::Context,
    error::Hinted,
    log_prefix::{Options, Prefixes},
    names::Names,
    units::parse_duration,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service logs web
  swarmctl service logs -f --tail 10 -t web
  swarmctl service logs --since 15m --no-trunc web
  swarmctl service logs web.2               (one task; also by its id)";

/// Show what the tasks of a service, or one task, have written
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Name or id of a service, or a task: its id or SERVICE.SLOT
    #[arg(value_name = "SERVICE|TASK")]
    target: String,
    /// Show labels and variables that the logging driver adds
    #[arg(long)]
    details: bool,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Show ids instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Leave task ids out
    #[arg(long)]
    no_task_ids: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Show lines as they were written, without saying whose they are
    #[arg(long, conflicts_with_all = ["details", "no_task_ids", "no_trunc", "no_resolve"])]
    raw: bool,
    /// Only what is newer: a time such as 2026-11-22T11:00:00Z, or a duration such as 15m
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Since>,
    /// Lines from the end of each task's log, or 'all'
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = parse_tail)]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
}

/// A point in time, or a time before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    AgoNs(i64),
}

/// What the logs are of.
struct Target {
    path: String,
    service: ServiceView,
}

impl Target {
    /// A note for people if no task of the service has a node yet: none of them can have written anything.
    async fn nothing_yet(&self, context: &Context) -> Option<String> {
        let tasks = tasks_of(context, &self.service.id).await.unwrap_or_default();
        let name = &self.service.spec.name;
        let waits = |task: &TaskView| task.status.container_status.is_none() && task.status.state == "pending";
        (!tasks.is_empty() && tasks.iter().all(waits)).then(|| {
            format!(
                "No task of {name} has a node yet, so that none has written anything. See: swarmctl service why {name}"
            )
        })
    }
}

/// The state of one command, which may need several connections.
struct Reading {
    is_tty: bool,
    /// Whether lines come with their times.
    times: bool,
    /// Lines that the present connection brought.
    lines: usize,
    shown: Shown,
}

/// How a connection ended.
enum End {
    /// There is nothing more.
    Over,
    /// It broke off: why.
    Broke(String),
}

impl Logs {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let target = self.find(context).await?;
        let is_tty = target.service.spec.task_template.container_spec.tty;
        if is_tty && !self.raw {
            return Err(Hinted {
                message: format!(
                    "service {} has a terminal (--tty): its output has no lines to mark",
                    target.service.spec.name
                ),
                hint: "Add --raw to see the output as it is.".to_owned(),
            }
            .into());
        }
        let since = self.since.map(|since| match since {
            Since::At(at) => at,
            Since::AgoNs(ns) => clock::now().plus_ns(-ns),
        });
        let mut prefixes = match self.raw {
            true => None,
            false => Some(self.prefixes(context, &target.service).await?),
        };
        if let Some(note) = target.nothing_yet(context).await {
            context.out.note(&note);
        }
        // Lines have times by which another connection goes on where this one broke; a terminal has no lines.
        let times = self.timestamps || self.follow && !is_tty;
        let mut reading = Reading { is_tty, times, lines: 0, shown: Shown::default() };
        let mut attempts = 0;
        loop {
            let (since, tail) = match reading.shown.since() {
                None => (since, self.tail.as_str()),
                shown => (shown, "all"),
            };
            let query = Query::new()
                .with("stdout", 1)
                .with("stderr", 1)
                .with_some("follow", self.follow.then_some(1))
                .with_some("timestamps", times.then_some(1))
                .with_some("details", (!self.raw).then_some(1))
                .with_some("since", since.map(seconds))
                .with("tail", tail);
            reading.lines = 0;
            reading.shown.begin();
            let broke = match self.read(context, &target, query, &mut reading, &mut prefixes).await? {
                End::Over => return Ok(()),
                End::Broke(reason) => reason,
            };
            attempts = if reading.lines == 0 { attempts + 1 } else { 0 };
            if !self.follow || is_tty || attempts >= ATTEMPTS_MAX {
                anyhow::bail!("{broke}");
            }
            if attempts <= 1 {
                context.out.note(&format!("The logs broke off, and are asked for again: {broke}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Shows what one connection brings.
    async fn read(
        &self,
        context: &mut Context,
        target: &Target,
        query: Query,
        reading: &mut Reading,
        prefixes: &mut Option<Prefixes>,
    ) -> anyhow::Result<End> {
        let mut body = match context.client.stream(&target.path, query).await {
            Ok(body) => body,
            Err(error) if error.is_transient() => return Ok(End::Broke(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let mut frames = FrameReader::default();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    let reason = format!("the logs end early: the connection to swarmd broke: {error}");
                    return Ok(End::Broke(reason));
                }
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if reading.is_tty {
                context.out.bytes(&bytes)?;
            } else {
                frames.push(&bytes);
                while let Some((stream, payload)) = frames.next_frame()? {
                    if stream == LogStream::Error {
                        let reason = String::from_utf8_lossy(&payload).trim().to_owned();
                        return Ok(End::Broke(format!("swarmd ended the logs: {reason}")));
                    }
                    if self.follow && !reading.shown.is_new(&payload) {
                        continue;
                    }
                    reading.lines += 1;
                    let line = match &mut *prefixes {
                        None if reading.times && !self.timestamps => {
                            LogLine::parse(payload, true, false)?.text.to_vec()
                        }
                        None => payload.to_vec(),
                        Some(prefixes) => {
                            let mut line = LogLine::parse(payload, reading.times, true)?;
                            line.timestamp = line.timestamp.filter(|_| self.timestamps);
                            prefixes.line(&context.client, &line).await?
                        }
                    };
                    match stream {
                        LogStream::Stderr => context.out.error_bytes(&line)?,
                        _ => context.out.bytes(&line)?,
                    }
                }
            }
            context.out.flush()?;
        }
        match frames.is_cut() {
            true => Ok(End::Broke("the logs end in the middle of a line: the connection to swarmd broke".to_owned())),
            false => Ok(End::Over),
        }
    }

    async fn find(&self, context: &Context) -> anyhow::Result<Target> {
        let id = segment(&self.target);
        let query = || Query::new().with("insertDefaults", false);
        match context.client.get::<ServiceView>(&format!("/services/{id}"), query()).await {
            Ok(service) => Ok(Target { path: format!("/services/{}/logs", segment(&service.id)), service }),
            Err(error) if error.is_not_found() => {
                let task: TaskView = match context.client.get(&format!("/tasks/{id}"), Query::new()).await {
                    Ok(task) => task,
                    Err(error) if error.is_not_found() => {
                        let hinted = no_such_service(&self.target);
                        let message = format!("no such service or task: {}", self.target);
                        return Err(Hinted { message, ..hinted }.into());
                    }
                    Err(error) => return Err(error.into()),
                };
                let service = context.client.get(&format!("/services/{}", segment(&task.service_id)), query()).await?;
                Ok(Target { path: format!("/tasks/{}/logs", segment(&task.id)), service })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn prefixes(&self, context: &Context, service: &ServiceView) -> anyhow::Result<Prefixes> {
        let (services, nodes) = match self.no_resolve {
            true => (Names::default(), Names::default()),
            false => {
                let services = Names::from_iter([(service.id.clone(), service.spec.name.clone())]);
                (services, Names::of_nodes(&context.client).await?)
            }
        };
        let slots = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            _ => 0,
        };
        let options = Options {
            task_ids: !self.no_task_ids,
            cut: !self.no_trunc,
            details: self.details,
            colour: context.out.has_colour(),
        };
        Ok(Prefixes::new(options, services, nodes, slots))
    }
}

/// Seconds with nine digits, as the API takes them.
fn seconds(at: Timestamp) -> String {
    format!("{}.{:09}", at.0.div_euclid(1_000_000_000), at.0.rem_euclid(1_000_000_000))
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(time) = Time::parse(text) {
        return Ok(Since::At(time.0));
    }
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Since::At(Timestamp::from_millis(i64::from(seconds) * 1000)));
    }
    parse_duration(text).map(Since::AgoNs).map_err(|_| {
        format!("'{text}' is neither a time (2026-11-22T11:00:00Z), seconds since 1970, nor a duration (15m)")
    })
}

fn parse_tail(text: &str) -> Result<String, String> {
    match text.parse::<u64>() {
        Ok(lines) => Ok(lines.to_string()),
        Err(_) if text == "all" => Ok(text.to_owned()),
        Err(_) => Err(format!("'{text}' is not a number of lines, nor 'all'")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        let at = |ns| Ok(Since::At(Timestamp(ns)));
        assert_eq!(parse_since("1970-01-01T00:00:01.5Z"), at(1_500_000_000));
        assert_eq!(parse_since("1970-01-01T01:00:01+01:00"), at(1_000_000_000));
        assert_eq!(parse_since("7"), at(7_000_000_000));
        assert_eq!(parse_since("1m"), Ok(Since::AgoNs(60_000_000_000)));
        assert!(parse_since("yesterday").is_err_and(|e| e.contains("'yesterday'")));
        assert_eq!(seconds(Timestamp(4_070_908_800_000_000_001)), "4070908800.000000001");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = (parse_since(&text), parse_tail(&text));
        }
    }
}
