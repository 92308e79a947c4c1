//! Hosts and containers are network namespaces, made by the tests themselves.

mod control;
mod encrypted;
mod overlay;
mod place;
mod repair;
mod resolver;
mod services;
mod tables;
