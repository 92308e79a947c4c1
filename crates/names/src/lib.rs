//! The names of the networks of a node, and the resolver that its containers ask.
//!
//! [`NamesTable`] is a value: the records of the networks and the containers of the node, and the answer to a question of
//! a container. [`Resolver`] serves the sockets that containers ask at, by the table that was published last.

mod table;

pub use table::{
    Answer, AttachedContainer, ContainerNames, ContainerNetwork, Kind, NamesTable, Question, VirtualAddrs,
};
