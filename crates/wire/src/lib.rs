//! Mutual TLS identity, the cluster's CA, framed streams, the agent and raft messages.

pub mod agent;
mod ca;
mod channel;
pub mod clock;
pub mod endpoints;
mod files;
mod identity;
pub mod join;
mod lock;
pub mod networks;
mod peer;
pub mod tls;
mod token;

pub use ca::{CSR_BYTES_MAX, Ca, CaError, IssuedCert, RootInfo, SigningTime};
pub use channel::{FRAME_BYTES_MAX, Receiver, Sender, channel};
pub use files::{check_regular, open_regular, read_private, read_regular, write_atomically};
pub use identity::{IDENTITY_FILES, IdentityError, NodeIdentity, new_key_and_csr};
pub use lock::{LockError, UnlockKey, WrapKey, is_wrapped};
pub use peer::{PeerError, PeerIdentity, role_from_ou, role_ou};
pub use tls::{
    Accepted, Alpn, BoxedStream, ByteStream, DataConnection, DataStream, DataTls, IdentityHolder, ShownChain, TlsError,
    Trust,
};
pub use token::{JoinToken, TokenError, root_digest};
