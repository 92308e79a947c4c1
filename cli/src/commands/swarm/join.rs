//! `swarm join`

use swarm_docker_api::view::{InfoView, JoinRequest};
use swarm_model::{Availability, Redacted};

use crate::{
    choice::{AVAILABILITIES, choice},
    client::Query,
    context::Context,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm join --token SWMTKN-1-… 10.0.0.1:2377
  SWARM_JOIN_TOKEN=$(cat token) swarmctl swarm join 10.0.0.1:2377

`swarmctl swarm join-token worker` on a manager prints the whole command.";

/// Join a swarm, with this node as a worker or a manager
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Join {
    /// Address of a manager
    #[arg(value_name = "HOST:PORT")]
    remote_addr: String,
    /// Join token; its kind decides the role. Other users of this machine can see flags, but not the variable
    #[arg(long, value_name = "TOKEN", env = "SWARM_JOIN_TOKEN", hide_env_values = true, value_parser = parse_token)]
    token: Redacted,
    /// Address that other nodes reach this one by: IP, IP:PORT or network interface
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen on, for managers: IP, IP:PORT or network interface
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Address of overlay traffic: IP or network interface
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Whether this node takes tasks
    #[arg(long, value_name = "AVAILABILITY", default_value = "active", value_parser = choice::<Availability>(AVAILABILITIES))]
    availability: Availability,
}

#[expect(clippy::unnecessary_wraps, reason = "a parser of flags may fail")]
fn parse_token(text: &str) -> Result<Redacted, String> {
    Ok(Redacted::new(text.trim()))
}

impl Join {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let request = JoinRequest {
            listen_addr: self.listen_addr,
            advertise_addr: self.advertise_addr,
            data_path_addr: self.data_path_addr,
            remote_addrs: vec![self.remote_addr],
            join_token: self.token,
            availability: self.availability.as_str().to_owned(),
        };
        context.client.post("/swarm/join", Query::new(), &request, None).await?;
        let info: InfoView = context.client.get("/info", Query::new()).await?;
        let role = if info.swarm.control_available { "manager" } else { "worker" };
        Ok(context.out.line(&format!("This node joined a swarm as a {role}."))?)
    }
}
