//! The process `swarmd net`: bridges, devices, tables and sockets of networks.
