//! The names of the networks of a node, and the resolver that its containers ask.
//!
//! [`NamesTable`] is a value: the records of the networks and the containers of the node, and the answer to a question of
//! a container. [`Resolver`] serves the sockets that containers ask at, by the table that was published last.

mod counters;
mod message;
mod resolver;
mod share;
mod table;
#[cfg(test)]
mod testing;
mod upstream;

pub use counters::Counters;
pub use resolver::{Audience, Resolver};
pub use table::{Answer, ContainerNames, ContainerNetwork, Kind, NamesTable, Question, VirtualAddrs};
pub use upstream::UpstreamOptions;
