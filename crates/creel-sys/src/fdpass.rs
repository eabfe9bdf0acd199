//! Descriptors over unix sockets (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// How many descriptors one message may carry here.
pub const MAX_FDS: usize = 32;

/// Sends bytes with descriptors; at least one byte is needed to carry them. Returns how many bytes were sent.
///
/// # Errors
/// EINVAL for more than [`MAX_FDS`] descriptors; else the kernel's (sendmsg(2)); a closed peer is EPIPE, never
/// SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(rustix::io::retry_on_intr(|| {
        sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Receives bytes and the descriptors that came along, all close-on-exec (allocates). 0 bytes is the end.
///
/// # Errors
/// The kernel's (recvmsg(2)); [`io::ErrorKind::InvalidData`] when descriptors were cut off (they are closed).
pub fn recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more descriptors were sent than can be taken",
        ));
    }
    Ok((message.bytes, fds))
}

/// Receives one packet of a `SOCK_SEQPACKET` socket with the descriptors that came along; what is longer than `most` is
/// cut. No bytes are the end. Only as much memory is touched as the packet has.
///
/// # Errors
/// As [`recv`].
pub fn recv_packet(socket: impl AsFd, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let look = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, length) = rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut [0u8; 0][..], look))?;
    let mut packet = vec![0; length.min(most)];
    let (n, fds) = recv(&socket, &mut packet)?;
    packet.truncate(n);
    Ok((packet, fds))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_crosses() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        super::send(&a, b"x", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buf = [0; 8];
        let (n, fds) = super::recv(&b, &mut buf).unwrap();
        assert_eq!((n, fds.len()), (1, 1));
        let mut file = std::fs::File::from(fds.into_iter().next().unwrap());
        file.write_all(b"hello").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_packet_is_taken_whole() {
        let (a, b) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let long = vec![b'x'; 20_000];
        super::send(&a, &long, &[a.as_fd()]).unwrap();
        super::send(&a, b"12345", &[]).unwrap();
        drop(a);
        let (packet, fds) = super::recv_packet(&b, 32_768).unwrap();
        assert_eq!((packet == long, fds.len()), (true, 1));
        drop(fds);
        assert_eq!(super::recv_packet(&b, 3).unwrap().0, b"123");
        assert_eq!(super::recv_packet(&b, 3).unwrap().0, b"");
    }
}
