//! Datagrams on a stream between nodes: before each its length, two bytes, the high one first.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::buffer::Buffer;

/// Length of a length.
const HEAD_BYTES: usize = 2;
/// Longest datagram that UDP over IPv4 carries.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Reads a datagram; none when the stream ended after one.
///
/// # Errors
/// The stream's; `UnexpectedEof` when it ended inside a datagram; `InvalidData` for a length over
/// [`DATAGRAM_BYTES_MAX`].
pub(super) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Buffer>> {
    let mut head = [0; HEAD_BYTES];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let len = usize::from(u16::from_be_bytes(head));
    let mut buffer = Buffer::take();
    let Some(space) = buffer.space().get_mut(..len).filter(|_| len <= DATAGRAM_BYTES_MAX) else {
        let text = format!("a datagram of {len} bytes is over the limit of {DATAGRAM_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    stream.read_exact(space).await?;
    Ok(Some(buffer.filled(len)))
}

/// Writes a datagram.
///
/// # Errors
/// The stream's; `InvalidInput` for one over [`DATAGRAM_BYTES_MAX`].
pub(super) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, datagram: &[u8]) -> io::Result<()> {
    let len = u16::try_from(datagram.len()).ok().filter(|len| usize::from(*len) <= DATAGRAM_BYTES_MAX);
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    // In one write: a link makes a frame of each.
    let mut buffer = Buffer::take();
    let end = HEAD_BYTES + datagram.len();
    if let Some((head, body)) = buffer.space().get_mut(..end).and_then(|space| space.split_at_mut_checked(HEAD_BYTES)) {
        head.copy_from_slice(&len.to_be_bytes());
        body.copy_from_slice(datagram);
    }
    stream.write_all(buffer.filled(end).rest()).await?;
    stream.flush().await
}
