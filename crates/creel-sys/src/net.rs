//! The one thing that a new network namespace needs before anything else: its loopback interface, up.

use rustix::ioctl::{Setter, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Brings `lo` of the calling thread's network namespace up, with 127.0.0.1 and ::1 on it (netdevice(7)).
///
/// # Errors
/// The kernel's: EPERM without CAP_NET_ADMIN.
pub fn bring_up_loopback() -> rustix::io::Result<()> {
    const SET_FLAGS: rustix::ioctl::Opcode = libc::SIOCSIFFLAGS as rustix::ioctl::Opcode;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    unsafe { ioctl(&socket, Setter::<SET_FLAGS, libc::ifreq>::new(request)) }
}
