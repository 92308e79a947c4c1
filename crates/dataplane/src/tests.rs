//! Tests of the whole process, with real sockets: a test is swarmd, the clients, and the tasks.

mod control;
mod draining;
mod handover;
mod host;
mod http;
mod limits;
mod listening;
mod proxy;
mod relaying;
mod remote;
mod source;
mod switch;
mod tcp;
mod udp;
