//! `swarm init`

use swarm_docker_api::view::{InitRequest, SwarmView, UnlockKeyView};
use swarm_model::{Availability, NodeRole};

use super::{join_command, manager_addr, settings::SettingsFlags, unlock_key};
use crate::{
    choice::{AVAILABILITIES, choice},
    client::{ClientError, Query, read},
    context::Context,
    error::Hinted,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm init
  swarmctl swarm init --advertise-addr 10.0.0.1
  swarmctl swarm init --advertise-addr eth1 --task-history-limit 2";

/// What became of the managers that there were before the cluster was made anew from one.
const ABANDONED: &str = "\
The managers that it was with must not come back as they were: on each of them, 'swarmctl swarm leave --force', then join.";

/// Make a new swarm, with this node as its first manager
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// Address that other nodes reach this one by: IP, IP:PORT or network interface
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen on: IP, IP:PORT or network interface
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Address of overlay traffic: IP or network interface
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Port of overlay traffic (0: 4789)
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    data_path_port: u16,
    /// Network that overlay networks get their addresses from, in CIDR form; can be repeated
    #[arg(long, value_name = "CIDR")]
    default_addr_pool: Vec<String>,
    /// Prefix length of an overlay network
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=29))]
    default_addr_pool_mask_length: u8,
    /// Encrypt overlay networks that do not say otherwise (network create --opt encrypted=false)
    #[arg(long)]
    encrypt_networks: bool,
    /// Whether this node takes tasks
    #[arg(long, value_name = "AVAILABILITY", default_value = "active", value_parser = choice::<Availability>(AVAILABILITIES))]
    availability: Availability,
    /// Let managers ask for a key after a restart
    #[arg(long)]
    autolock: bool,
    /// Make a new swarm of one manager from the state of this one
    #[arg(long)]
    force_new_cluster: bool,
    #[command(flatten)]
    settings: SettingsFlags,
}

impl Init {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut request = InitRequest {
            listen_addr: self.listen_addr,
            advertise_addr: self.advertise_addr,
            data_path_addr: self.data_path_addr,
            data_path_port: self.data_path_port.into(),
            encrypt_networks: self.encrypt_networks,
            force_new_cluster: self.force_new_cluster,
            auto_lock_managers: self.autolock,
            availability: self.availability.as_str().to_owned(),
            default_addr_pool: Some(self.default_addr_pool),
            subnet_size: self.default_addr_pool_mask_length.into(),
            ..InitRequest::default()
        };
        request.spec.encryption_config.auto_lock_managers = self.autolock;
        self.settings.apply(&mut request.spec);
        let answer = context.client.post("/swarm/init", Query::new(), &request, None).await.map_err(advise)?;
        let node_id: String = read("/swarm/init", &answer)?;
        if self.force_new_cluster {
            context.out.line(&format!("Swarm recovered: current node ({node_id}) is now its only manager."))?;
            context.out.line(ABANDONED)?;
        } else {
            context.out.line(&format!("Swarm initialized: current node ({node_id}) is now a manager."))?;
        }
        let swarm: SwarmView = context.client.get("/swarm", Query::new()).await?;
        if let Some(addr) = manager_addr(&context.client, &node_id).await? {
            let command = join_command(NodeRole::Worker, swarm.join_tokens.worker.expose(), &addr);
            context.out.line(&format!("\n{command}"))?;
        }
        context.out.line(
            "To add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.",
        )?;
        if self.autolock {
            let key: UnlockKeyView = context.client.get("/swarm/unlockkey", Query::new()).await?;
            context.out.line("")?;
            unlock_key::show(context, key.unlock_key.expose())?;
        }
        Ok(())
    }
}

/// Names the flag that helps where the server cannot choose an address (docker-api §3).
fn advise(error: ClientError) -> anyhow::Error {
    let message = error.to_string();
    if message.contains("could not choose an IP address") || message.contains("could not find the system's IP address")
    {
        let hint = "Say which one with --advertise-addr.".to_owned();
        return Hinted { message, hint }.into();
    }
    error.into()
}
