//! The settings of swarmd: flags, environment, one TOML file, defaults, in this order of precedence.

mod values;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use swarm_model::{GenericResource, Labels};

pub(crate) use self::values::{Engine, LogFormat, NodeLimits};
use self::values::{parse_engine, parse_generic, parse_label, parse_limits, parse_log_format};

/// Read if it is there; `--config` names another one.
const FILE_DEFAULT: &str = "/etc/swarmd/swarmd.toml";
/// Where state is kept unless said otherwise.
pub(crate) const STATE_DIR_DEFAULT: &str = "/var/lib/swarmd";
const SOCKET_DEFAULT: &str = "/run/swarmd/swarmd.sock";
/// Beside the socket: `/run` is in memory.
const SECRETS_DIR_DEFAULT: &str = "/run/swarmd/secrets";
const SANDBOXES_DIR_DEFAULT: &str = "/run/docker/netns";
const ENGINE_DEFAULT: &str = "unix:///var/run/docker.sock";
/// Where managers listen unless said otherwise. `docker swarm init` sends this when it was told nothing.
pub(crate) const LISTEN_ADDR_DEFAULT: &str = "0.0.0.0:2377";
/// Open wherever Swarm ran, which gossips on it (data-plane §6).
const DATA_PORT_DEFAULT: &str = "7946";
/// Largest configuration file that is read; a real one has a few hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The node daemon of a swarm: joins this machine to a cluster and runs containers on its Docker Engine.
#[derive(Debug, Parser)]
#[command(name = "swarmd", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// TOML file with the same settings, named as the flags are [default: /etc/swarmd/swarmd.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Layer,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Each setting can also come from the environment (SWARMD_STATE_DIR for --state-dir, SWARMD_LABEL=a=1,b=2 for two labels)
or from the file; a flag wins over the environment, the environment over the file.

Examples:
  # A node on this machine's Docker Engine
  swarmd

  # A second node on the same machine and engine, for trying things out
  swarmd --state-dir /var/lib/swarmd-2 --socket /run/swarmd/2.sock --hostname two \\
         --listen-addr 127.0.0.2:2377 --advertise-addr 127.0.0.2 --resources cpu=1,memory=1g

  # Without Docker and without root: containers are only pretended
  swarmd --state-dir /tmp/node --socket /tmp/node.sock --engine simulated --listen-addr 127.0.0.1:2377

  # Then, with swarmctl or with Docker's own client:
  docker -H unix:///run/swarmd/swarmd.sock swarm init";

/// The programs that swarmd can be instead of a node daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the data plane of a node: hold its published ports and forward connections, also while swarmd is away. swarmd starts
    /// it itself, or a unit of its own does (see --data-socket)
    Data {
        /// Unix socket for swarmd, in a folder of mode 0700
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// Take over from the data plane that runs there: its ports, and what it knows. It ends with its last connection.
        /// SIGHUP makes a data plane start another one in this way (systemctl reload)
        #[arg(long)]
        take_over: bool,
    },
    /// Make the devices and tables of networks, on this host and in its containers. It reads nothing that came over a network.
    /// swarmd starts it itself, or a unit of its own does (see --net-socket)
    Net {
        /// Unix socket for swarmd and its data plane, in a folder of mode 0700
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
    },
}

/// One source of settings. All are texts here, so that an error can name the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Layer {
    /// Folder for identity, log and tasks [default: /var/lib/swarmd]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Unix socket of the API (Docker Engine API 1.50) [default: /run/swarmd/swarmd.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Container engine: unix://PATH, or `simulated` for none [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Folder in memory, as /run and /dev/shm are, for the files of tasks' secrets and configs; the engine must see it
    /// [default: /run/swarmd/secrets]
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<String>,
    /// Folder where the engine shows the network namespaces of its containers: netns below dockerd's --exec-root
    /// [default: /run/docker/netns]
    #[arg(long, value_name = "DIR")]
    sandboxes_dir: Option<String>,
    /// Where this node listens as a manager; host-mode ports open on this address, too [default: 0.0.0.0:2377]
    #[arg(long, value_name = "IP[:PORT]")]
    listen_addr: Option<String>,
    /// What other nodes reach this one by: an address or a network interface [default: the only address there is]
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// TCP port for connections between the data planes of nodes, on the address of --listen-addr [default: 7946]
    #[arg(long, value_name = "PORT")]
    data_port: Option<String>,
    /// Unix socket of a data plane that a unit of its own starts (`swarmd data`) [default: swarmd starts it where needed]
    #[arg(long, value_name = "PATH")]
    data_socket: Option<String>,
    /// Unix socket of a `swarmd net` that a unit of its own starts [default: swarmd starts it where needed]
    #[arg(long, value_name = "PATH")]
    net_socket: Option<String>,
    /// Name of the node [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// What tasks can reserve, for instance cpu=1.5,memory=2g [default: what the engine has]
    #[arg(long, value_name = "cpu=N,memory=SIZE")]
    resources: Option<String>,
    /// Generic resource that tasks can reserve: a count, or one by name; repeatable [default: what the engine has]
    #[arg(long, value_name = "KIND=N|KIND=NAME")]
    generic_resource: Vec<String>,
    /// Label of the node's engine (constraint engine.labels.KEY); repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// File that gets a line of JSON for each change that is asked for on this node [default: none]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,swarm_manager=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// The settings of this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Folder for everything that is kept.
    pub(crate) state_dir: PathBuf,
    /// The API's socket.
    pub(crate) socket: PathBuf,
    /// The container engine.
    pub(crate) engine: Engine,
    /// Folder for the files of tasks' secrets and configs.
    pub(crate) secrets_dir: PathBuf,
    /// Folder of the network namespaces of containers.
    pub(crate) sandboxes_dir: PathBuf,
    /// Where to listen as a manager.
    pub(crate) listen_addr: SocketAddr,
    /// What to tell others; none to find out.
    pub(crate) advertise_addr: Option<String>,
    /// The port for other nodes' data planes.
    pub(crate) data_port: u16,
    /// The socket of a data plane that somebody else starts.
    pub(crate) data_socket: Option<PathBuf>,
    /// The socket of a `swarmd net` that somebody else starts.
    pub(crate) net_socket: Option<PathBuf>,
    /// Name of the node.
    pub(crate) hostname: String,
    /// What the node offers, where it is not what the engine has.
    pub(crate) limits: NodeLimits,
    /// Labels of the engine.
    pub(crate) labels: Labels,
    /// The audit log, if there is to be one.
    pub(crate) audit_log: Option<PathBuf>,
    /// A filter in `tracing`'s syntax.
    pub(crate) log_filter: String,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
}

impl Config {
    /// Settings from the command line, the environment (`env` looks a variable up) and the file.
    pub(crate) fn load(cli: Cli, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let named = cli.config.or_else(|| env("SWARMD_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| FILE_DEFAULT.into());
        let file = match read_file(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("the configuration file {}", path.display()))?,
            Err(e) if named.is_none() && e.kind() == io::ErrorKind::NotFound => Layer::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read the configuration file {}", path.display())),
        };
        Sources { flags: cli.flags, env: Layer::from_env(env), file, path }.settle()
    }
}

impl Layer {
    fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        let list = |name: &str| -> Vec<String> {
            env(name).unwrap_or_default().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        Self {
            state_dir: env("SWARMD_STATE_DIR"),
            socket: env("SWARMD_SOCKET"),
            engine: env("SWARMD_ENGINE"),
            secrets_dir: env("SWARMD_SECRETS_DIR"),
            sandboxes_dir: env("SWARMD_SANDBOXES_DIR"),
            listen_addr: env("SWARMD_LISTEN_ADDR"),
            advertise_addr: env("SWARMD_ADVERTISE_ADDR"),
            data_port: env("SWARMD_DATA_PORT"),
            data_socket: env("SWARMD_DATA_SOCKET"),
            net_socket: env("SWARMD_NET_SOCKET"),
            hostname: env("SWARMD_HOSTNAME"),
            resources: env("SWARMD_RESOURCES"),
            generic_resource: list("SWARMD_GENERIC_RESOURCE"),
            label: list("SWARMD_LABEL"),
            audit_log: env("SWARMD_AUDIT_LOG"),
            log_level: env("SWARMD_LOG_LEVEL"),
            log_format: env("SWARMD_LOG_FORMAT"),
        }
    }
}

/// The layers, the strongest first.
struct Sources {
    flags: Layer,
    env: Layer,
    file: Layer,
    path: PathBuf,
}

impl Sources {
    fn settle(self) -> Result<Config> {
        let hostname = self.pick(
            "hostname",
            |l| l.hostname.as_deref(),
            "",
            |text| {
                if text.len() > 253 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    bail!("a host name has at most 253 characters and no space");
                }
                Ok(text.to_owned())
            },
        )?;
        let hostname = if hostname.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            hostname
        };
        let level = self.pick(
            "log-level",
            |l| l.log_level.as_deref(),
            "info",
            |text| {
                if text.contains([',', '=']) {
                    tracing_subscriber::EnvFilter::try_new(text)?;
                    return Ok(text.to_owned());
                }
                match text {
                    // What openraft says below an error is for its developers: one line a heartbeat while a manager is
                    // away. That it is away is said by swarm_consensus.
                    "error" | "warn" | "info" | "debug" | "trace" => Ok(format!("{text},openraft=error")),
                    _ => bail!("possible are error, warn, info, debug and trace"),
                }
            },
        )?;
        let folder = |text: &str| {
            if text.is_empty() { bail!("a path is wanted") } else { Ok(std::path::absolute(text)?) }
        };
        Ok(Config {
            state_dir: self.pick("state-dir", |l| l.state_dir.as_deref(), STATE_DIR_DEFAULT, folder)?,
            socket: self.pick("socket", |l| l.socket.as_deref(), SOCKET_DEFAULT, folder)?,
            engine: self.pick("engine", |l| l.engine.as_deref(), ENGINE_DEFAULT, parse_engine)?,
            secrets_dir: self.pick("secrets-dir", |l| l.secrets_dir.as_deref(), SECRETS_DIR_DEFAULT, folder)?,
            sandboxes_dir: self.pick("sandboxes-dir", |l| l.sandboxes_dir.as_deref(), SANDBOXES_DIR_DEFAULT, folder)?,
            listen_addr: self.pick(
                "listen-addr",
                |l| l.listen_addr.as_deref(),
                LISTEN_ADDR_DEFAULT,
                crate::address::parse_listen,
            )?,
            advertise_addr: self
                .pick("advertise-addr", |l| l.advertise_addr.as_deref(), "", |text| Ok(text.to_owned()))
                .map(|text| (!text.is_empty()).then_some(text))?,
            data_port: self.pick(
                "data-port",
                |l| l.data_port.as_deref(),
                DATA_PORT_DEFAULT,
                |text| match text.parse() {
                    Ok(0) | Err(_) => bail!("a port is a number from 1 to 65535"),
                    Ok(port) => Ok(port),
                },
            )?,
            data_socket: self.pick("data-socket", |l| l.data_socket.as_deref(), "", socket_path)?,
            net_socket: self.pick("net-socket", |l| l.net_socket.as_deref(), "", socket_path)?,
            limits: NodeLimits {
                generic: self.generic_resources()?,
                ..self.pick("resources", |l| l.resources.as_deref(), "", parse_limits)?
            },
            labels: self.labels()?,
            audit_log: self.pick(
                "audit-log",
                |l| l.audit_log.as_deref(),
                "",
                |text| Ok(if text.is_empty() { None } else { Some(std::path::absolute(text)?) }),
            )?,
            log_format: self.pick("log-format", |l| l.log_format.as_deref(), "text", parse_log_format)?,
            log_filter: level,
            hostname,
        })
    }

    /// The value of the strongest source that has one.
    fn pick<T>(
        &self,
        name: &str,
        value: impl Fn(&Layer) -> Option<&str>,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let (text, source) = if let Some(text) = value(&self.flags) {
            (text, format!("--{name}"))
        } else if let Some(text) = value(&self.env) {
            (text, format!("SWARMD_{}", name.to_uppercase().replace('-', "_")))
        } else if let Some(text) = value(&self.file) {
            (text, format!("{name} in {}", self.path.display()))
        } else {
            (default, format!("the default of --{name}"))
        };
        parse(text).with_context(|| format!("invalid value {text:?} of {source}"))
    }

    /// The generic resources of the strongest source that names any.
    fn generic_resources(&self) -> Result<Vec<GenericResource>> {
        let named = [&self.flags, &self.env, &self.file].into_iter().find(|layer| !layer.generic_resource.is_empty());
        parse_generic(named.map_or(&[], |layer| &layer.generic_resource)).context("invalid generic-resource")
    }

    /// Labels of all sources; of one key the strongest source's.
    fn labels(&self) -> Result<Labels> {
        let mut labels = Labels::new();
        for layer in [&self.file, &self.env, &self.flags] {
            for text in &layer.label {
                let (key, value) = parse_label(text).with_context(|| format!("invalid label {text:?}"))?;
                labels.insert(key, value);
            }
        }
        Ok(labels)
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has {size} bytes, the limit is {FILE_BYTES_MAX}")));
    }
    fs::read_to_string(path)
}

/// The socket of another process; none for an empty text.
fn socket_path(text: &str) -> Result<Option<PathBuf>> {
    Ok(if text.is_empty() { None } else { Some(std::path::absolute(text)?) })
}

#[cfg(test)]
mod tests;
