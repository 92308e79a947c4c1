//! Backups, streamed in both directions: they are as large as the swarm's state.

use std::{
    fs::File,
    io::{self, Read, Write},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Request,
    body::Frame,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use swarm_docker_api::{CONTENT_TYPE_BACKUP, PASSPHRASE_HEADER, REVISION_HEADER, write_passphrase};
use swarm_model::Redacted;

use super::{Client, ClientError, Query, RESPONSE_WAIT, VERSION_PREFIX, read};

/// Longest wait until a backup is read, checked and taken up: a million tasks take a minute or two on a slow machine.
const RESTORE_WAIT: Duration = Duration::from_secs(600);
/// Bytes of the file that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A backup that was received.
pub(crate) struct Received {
    /// The revision of the state in it, as the manager says.
    pub(crate) revision: String,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Client {
    /// Takes a backup and writes it to `out`. One that breaks off is an error.
    pub(crate) async fn backup(&self, passphrase: &Redacted, out: &mut impl Write) -> anyhow::Result<Received> {
        let request = request("/swarmd/backup", Query::new(), passphrase, Empty::<Bytes>::new())?;
        let response = self.answer(request, RESPONSE_WAIT).await?;
        let revision = response.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok());
        let mut received = Received { revision: revision.unwrap_or("?").to_owned(), bytes: 0 };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ClientError::Broken { host: self.host.clone(), error })?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data)?;
                received.bytes += data.len() as u64;
            }
        }
        Ok(received)
    }

    /// Sends a backup to a node that is to take it up. Returns the node's new id.
    pub(crate) async fn restore(&self, query: Query, passphrase: &Redacted, file: File) -> Result<String, ClientError> {
        const PATH: &str = "/swarmd/restore";
        let chunks = stream::iter(Chunks(file));
        let response = self.answer(request(PATH, query, passphrase, StreamBody::new(chunks))?, RESTORE_WAIT).await?;
        read(PATH, &self.body(response).await?)
    }
}

fn request<B>(path: &str, query: Query, passphrase: &Redacted, body: B) -> Result<Request<B>, ClientError> {
    let impossible = |e: hyper::http::Error| ClientError::Request(e.to_string());
    let mut header =
        HeaderValue::try_from(write_passphrase(passphrase)).map_err(|e| ClientError::Request(e.to_string()))?;
    header.set_sensitive(true);
    Request::post(format!("{VERSION_PREFIX}{path}{query}"))
        .header(HOST, "swarmd")
        .header(CONTENT_TYPE, CONTENT_TYPE_BACKUP)
        .header(PASSPHRASE_HEADER, header)
        .body(body)
        .map_err(impossible)
}

/// A file, piece by piece. This program does nothing else meanwhile.
struct Chunks(File);

impl Iterator for Chunks {
    type Item = io::Result<Frame<Bytes>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        match (&mut self.0).take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(chunk.into()))),
            Err(error) => Some(Err(error)),
        }
    }
}
