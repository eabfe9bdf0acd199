//! A resolver: answers what its zones know, and asks others for the rest.
//!
//! It has no thread and waits for nothing: whoever owns it waits for its descriptor and its deadline among others, and calls
//! [`Resolver::serve`]. The sockets at which it is asked may be of another network namespace than its own, in which it asks.
//! A question goes to the server that answered last; when that is silent for [`HEDGE`], to the next one as well, and so on:
//! a dead server costs that once, not every time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Code, Query, Reply, TCP_MOST};
use super::zone::{Found, Zone};
use crate::error::{Error, Result};

/// How long a server may think before another is asked, too.
pub const HEDGE: Duration = Duration::from_millis(400);
/// How long an answer may take altogether; the client gives up then, too (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(5);
/// How many questions may be open with others.
const MOST: usize = 1024;
/// How many clients may hold a connection, and for how long without a question.
const MOST_CLIENTS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
/// How many questions are read at once, so that nothing else starves.
const BUSTLE: usize = 64;

const UDP: u64 = 0;
const LISTENER: u64 = 1;
const FIRST_FREE: u64 = 2;

/// Who asked, and where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Udp(SocketAddr),
    Tcp(u64),
}

/// A question that others are asked.
#[derive(Debug)]
struct Job {
    client: Client,
    query: Query,
    message: Vec<u8>,
    /// Servers that have not been asked yet, the next one last.
    left: Vec<SocketAddr>,
    /// Conversations that are open for it.
    open: usize,
    /// The last answer that says that a server cannot help: what there is when none can.
    refusal: Option<Vec<u8>>,
    next: Instant,
    end: Instant,
}

/// A conversation with a server.
#[derive(Debug)]
struct Talk {
    job: u64,
    server: SocketAddr,
    socket: OwnedFd,
    id: u16,
    /// TCP: what is still to be sent, and what has come.
    stream: Option<(Vec<u8>, Vec<u8>)>,
}

/// A client's connection.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    read: Vec<u8>,
    write: Vec<u8>,
    /// A question of its that is not answered yet: the next one waits.
    busy: bool,
    /// The client will ask no more.
    ended: bool,
    since: Instant,
}

/// A resolver for one container.
#[derive(Debug)]
pub struct Resolver {
    epoll: OwnedFd,
    udp: OwnedFd,
    listener: OwnedFd,
    zones: Vec<Zone>,
    servers: Vec<SocketAddr>,
    jobs: BTreeMap<u64, Job>,
    talks: BTreeMap<u64, Talk>,
    connections: BTreeMap<u64, Connection>,
    /// Connections that can go on.
    ready: Vec<u64>,
    next: u64,
    turn: usize,
    buffer: Box<[u8]>,
}

fn failed(step: &str) -> impl Fn(Errno) -> Error {
    move |e| Error::step(step, e)
}

const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Opens the sockets at which a resolver is asked, at an address of the calling thread's network namespace: UDP and TCP at
/// the same port, of the kernel's choice if it is 0.
///
/// # Errors
/// [`Error::Step`].
pub fn open_at(address: SocketAddr) -> Result<(OwnedFd, OwnedFd)> {
    let failed = failed("open a resolver's sockets");
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = |kind| rustix::net::socket_with(family, kind, NON_BLOCKING, None);
    // Somebody may have the port for the one protocol alone.
    for _ in 0..16 {
        let udp = open(SocketType::DGRAM).map_err(&failed)?;
        rustix::net::bind(&udp, &address).map_err(&failed)?;
        let taken = rustix::net::getsockname(&udp).map_err(&failed)?;
        let taken = SocketAddr::try_from(taken).map_err(&failed)?;
        let tcp = open(SocketType::STREAM).map_err(&failed)?;
        match rustix::net::bind(&tcp, &taken) {
            Err(Errno::ADDRINUSE) if address.port() == 0 => {}
            other => {
                other.and_then(|()| rustix::net::listen(&tcp, 64)).map_err(&failed)?;
                return Ok((udp, tcp));
            }
        }
    }
    Err(failed(Errno::ADDRINUSE))
}

impl Resolver {
    /// A resolver that is asked at these sockets (see [`open_at`]), without zones and servers.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn new(udp: OwnedFd, listener: OwnedFd) -> Result<Resolver> {
        let failed = failed("wait for questions");
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(&failed)?;
        for (fd, token) in [(&udp, UDP), (&listener, LISTENER)] {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN).map_err(&failed)?;
        }
        Ok(Resolver {
            epoll,
            udp,
            listener,
            zones: Vec::new(),
            servers: Vec::new(),
            jobs: BTreeMap::new(),
            talks: BTreeMap::new(),
            connections: BTreeMap::new(),
            ready: Vec::new(),
            next: FIRST_FREE,
            turn: 0,
            buffer: vec![0; TCP_MOST].into(),
        })
    }

    /// What it knows by itself: the zones of the container's networks, the first one first.
    pub fn set_zones(&mut self, zones: Vec<Zone>) {
        self.zones = zones;
    }

    /// Whom it asks, the first one first.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// When [`Resolver::serve`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let jobs =
            self.jobs.values().map(|job| if job.left.is_empty() { job.end } else { job.next.min(job.end) });
        jobs.chain(self.connections.values().map(|connection| connection.since + IDLE)).min()
    }

    /// Does what there is to do, and waits for nothing. To be called when the descriptor is readable, or the deadline over.
    ///
    /// # Errors
    /// [`Error::Step`] when not even that can be asked.
    pub fn serve(&mut self) -> Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let (ready, _) = match epoll::wait(&self.epoll, &mut events[..], Some(&now)) {
            Err(Errno::INTR) => return Ok(()),
            other => other.map_err(failed("wait for questions"))?,
        };
        let tokens: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
        for token in tokens {
            match token {
                UDP => self.read_udp(),
                LISTENER => self.accept(),
                token if self.talks.contains_key(&token) => self.talk(token),
                token => self.serve_connection(token),
            }
        }
        self.tick(Instant::now());
        while let Some(token) = self.ready.pop() {
            self.move_on(token);
        }
        Ok(())
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn read_udp(&mut self) {
        for _ in 0..BUSTLE {
            let (n, from) = match rustix::net::recvfrom(&self.udp, &mut *self.buffer, RecvFlags::empty()) {
                Ok((n, _, Some(from))) => (n, from),
                Err(Errno::INTR) => continue,
                // Nothing more, or word of an answer that did not arrive.
                _ => return,
            };
            let Ok(from) = SocketAddr::try_from(from) else { continue };
            let message = self.buffer.get(..n).unwrap_or_default().to_vec();
            self.question(Client::Udp(from), message);
        }
    }

    /// Answers a question, now or later.
    fn question(&mut self, client: Client, message: Vec<u8>) {
        let query = match Query::read(&message) {
            Ok(query) => query,
            Err(error) => {
                if let Some(bytes) = Reply::to_malformed(error) {
                    self.send(client, bytes);
                }
                return;
            }
        };
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let known = self.zones.iter().find_map(|zone| match zone.look_up(&query.name, query.kind, turn) {
            Found::Records(records) => Some(records),
            Found::Unknown => None,
        });
        if let Some(records) = known {
            let reply = Reply { query: &query, code: Code::NoError, authoritative: true, records: &records };
            return self.reply(client, &reply);
        }
        let code = match (query.recursion, self.servers.is_empty()) {
            (false, _) => Some(Code::Refused),
            // Nobody else knows names of one label.
            (_, true) if !query.name.contains('.') => Some(Code::NoSuchName),
            (_, true) => Some(Code::ServerFailure),
            _ if self.jobs.len() >= MOST => Some(Code::ServerFailure),
            _ => None,
        };
        if let Some(code) = code {
            let reply = Reply { query: &query, code, authoritative: false, records: &[] };
            return self.reply(client, &reply);
        }
        let now = Instant::now();
        let left = self.servers.iter().rev().copied().collect();
        let job =
            Job { client, query, message, left, open: 0, refusal: None, next: now, end: now + PATIENCE };
        let token = self.token();
        self.jobs.insert(token, job);
        self.ask_next(token, now);
    }

    fn reply(&mut self, client: Client, reply: &Reply<'_>) {
        let bytes = match client {
            Client::Udp(_) => reply.for_udp(),
            Client::Tcp(_) => reply.for_tcp(),
        };
        self.send(client, bytes);
    }

    fn send(&mut self, client: Client, bytes: Vec<u8>) {
        match client {
            Client::Udp(to) => {
                // A client that is gone asks no more.
                let _ = rustix::net::sendto(&self.udp, &bytes, SendFlags::NOSIGNAL, &to);
            }
            Client::Tcp(token) => {
                let Some(connection) = self.connections.get_mut(&token) else { return };
                let Ok(length) = u16::try_from(bytes.len()) else { return };
                connection.write.extend(length.to_be_bytes());
                connection.write.extend(bytes);
                connection.busy = false;
                connection.since = Instant::now();
                self.ready.push(token);
            }
        }
    }

    /// Asks the next server that is left; when a question cannot even be sent, the one after that.
    fn ask_next(&mut self, token: u64, now: Instant) {
        loop {
            let talk = self.token();
            let Some(job) = self.jobs.get_mut(&token) else { return };
            job.next = now + HEDGE;
            let Some(server) = job.left.pop() else { break };
            let is_tcp = matches!(job.client, Client::Tcp(_));
            match ask(&self.epoll, talk, token, server, &job.message, is_tcp) {
                Ok(opened) => {
                    job.open += 1;
                    self.talks.insert(talk, opened);
                    return;
                }
                Err(_) => continue,
            }
        }
        if self.jobs.get(&token).is_some_and(|job| job.open == 0) {
            self.give_up(token);
        }
    }

    /// Goes on with a conversation.
    fn talk(&mut self, token: u64) {
        let Some(talk) = self.talks.get_mut(&token) else { return };
        let answer = match &mut talk.stream {
            None => match rustix::net::recv(&talk.socket, &mut *self.buffer, RecvFlags::empty()) {
                Ok((n, _)) => Some(self.buffer.get(..n).unwrap_or_default().to_vec()),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => None,
            },
            Some((write, read)) => match push(&talk.socket, write).and_then(|()| pull(&talk.socket, read)) {
                Ok(open) => match framed(read) {
                    Some(message) => Some(message),
                    None if open => {
                        let flags =
                            if write.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
                        let _ = epoll::modify(&self.epoll, &talk.socket, EventData::new_u64(token), flags);
                        return;
                    }
                    None => None,
                },
                Err(_) => None,
            },
        };
        let Some(job) = self.jobs.get(&talk.job) else {
            self.talks.remove(&token);
            return;
        };
        let (owner, server) = (talk.job, talk.server);
        match answer {
            // Not to what was asked: somebody guesses. What was asked may still be answered.
            Some(answer) if !answers(&answer, talk.id, &job.message) => {}
            Some(mut answer) => {
                answer[..2].copy_from_slice(&job.query.id.to_be_bytes());
                if matches!(answer[3] & 0x0f, 0 | 3) {
                    return self.finish(owner, server, answer);
                }
                self.drop_talk(token, owner, Some(answer));
            }
            None => self.drop_talk(token, owner, None),
        }
    }

    /// Ends a conversation that brought nothing.
    fn drop_talk(&mut self, token: u64, owner: u64, refusal: Option<Vec<u8>>) {
        self.talks.remove(&token);
        if let Some(job) = self.jobs.get_mut(&owner) {
            job.open -= 1;
            job.refusal = refusal.or(job.refusal.take());
            if job.open == 0 || !job.left.is_empty() {
                self.ask_next(owner, Instant::now());
            }
        }
    }

    /// Passes an answer on, and remembers who gave it.
    fn finish(&mut self, owner: u64, server: SocketAddr, answer: Vec<u8>) {
        self.talks.retain(|_, talk| talk.job != owner);
        if let Some(at) = self.servers.iter().position(|known| *known == server) {
            self.servers[..=at].rotate_right(1);
        }
        if let Some(job) = self.jobs.remove(&owner) {
            self.send(job.client, answer);
        }
    }

    /// Nobody has answered, or none could help.
    fn give_up(&mut self, owner: u64) {
        self.talks.retain(|_, talk| talk.job != owner);
        let Some(job) = self.jobs.remove(&owner) else { return };
        match job.refusal {
            Some(answer) => self.send(job.client, answer),
            None => {
                let code = Code::ServerFailure;
                self.reply(
                    job.client,
                    &Reply { query: &job.query, code, authoritative: false, records: &[] },
                );
            }
        }
    }

    /// What is due.
    fn tick(&mut self, now: Instant) {
        let late = |job: &Job| job.end <= now || !job.left.is_empty() && job.next <= now;
        let due: Vec<u64> = self.jobs.iter().filter(|(_, job)| late(job)).map(|(token, _)| *token).collect();
        for token in due {
            match self.jobs.get(&token) {
                Some(job) if job.end <= now => self.give_up(token),
                Some(_) => self.ask_next(token, now),
                None => {}
            }
        }
        self.connections.retain(|_, connection| connection.since + IDLE > now);
    }

    fn accept(&mut self) {
        for _ in 0..BUSTLE {
            let Ok(socket) = rustix::net::accept_with(&self.listener, NON_BLOCKING) else { return };
            if self.connections.len() >= MOST_CLIENTS {
                // Whoever has been silent for longest makes room.
                let silent =
                    self.connections.iter().filter(|(_, one)| !one.busy).min_by_key(|(_, one)| one.since);
                match silent.map(|(token, _)| *token) {
                    Some(token) => drop(self.connections.remove(&token)),
                    None => continue,
                }
            }
            let token = self.token();
            if epoll::add(&self.epoll, &socket, EventData::new_u64(token), EventFlags::IN).is_ok() {
                let (read, write) = (Vec::new(), Vec::new());
                let since = Instant::now();
                let connection = Connection { socket, read, write, busy: false, ended: false, since };
                self.connections.insert(token, connection);
            }
        }
    }

    fn serve_connection(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match pull(&connection.socket, &mut connection.read) {
            Ok(true) => {}
            Ok(false) => {
                // It would be told again and again; what was asked is still answered.
                let _ = epoll::delete(&self.epoll, &connection.socket);
                connection.ended = true;
            }
            Err(_) => return drop(self.connections.remove(&token)),
        }
        self.ready.push(token);
    }

    /// Sends what there is for a connection, and takes its next question.
    fn move_on(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if push(&connection.socket, &mut connection.write).is_err() {
            return drop(self.connections.remove(&token));
        }
        let waits = framed_length(&connection.read).is_some();
        if connection.ended && !connection.busy && !waits {
            // What does not go into the kernel's buffer is for nobody.
            return drop(self.connections.remove(&token));
        }
        if !connection.ended {
            let mut flags = if connection.write.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
            flags |= if connection.busy { EventFlags::empty() } else { EventFlags::IN };
            let _ = epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(token), flags);
        }
        if !connection.busy
            && let Some(message) = framed(&mut connection.read)
        {
            connection.busy = true;
            connection.since = Instant::now();
            self.question(Client::Tcp(token), message);
        }
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Begins a conversation: by the protocol that the client uses, from a port and with a number that nobody guesses.
fn ask(
    epoll: &OwnedFd,
    token: u64,
    job: u64,
    server: SocketAddr,
    message: &[u8],
    is_tcp: bool,
) -> std::result::Result<Talk, Errno> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if is_tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(family, kind, NON_BLOCKING, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e),
    }
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let mut own = message.to_vec();
    own[..2].copy_from_slice(&id);
    let (stream, flags) = match is_tcp {
        true => {
            let length = u16::try_from(own.len()).map_err(|_| Errno::MSGSIZE)?;
            let framed = [&length.to_be_bytes()[..], &own].concat();
            (Some((framed, Vec::new())), EventFlags::IN | EventFlags::OUT)
        }
        false => {
            rustix::net::send(&socket, &own, SendFlags::NOSIGNAL)?;
            (None, EventFlags::IN)
        }
    };
    epoll::add(epoll, &socket, EventData::new_u64(token), flags)?;
    Ok(Talk { job, server, socket, id: u16::from_be_bytes(id), stream })
}

/// Whether a message answers the question that was asked under this number.
fn answers(answer: &[u8], id: u16, question: &[u8]) -> bool {
    const HEADER: usize = 12;
    let end = |message: &[u8]| {
        let mut at = HEADER;
        loop {
            match *message.get(at)? {
                0 => return Some(at + 5),
                length => at += 1 + usize::from(length),
            }
        }
    };
    let (Some(asked), Some(head)) = (end(question), answer.first_chunk::<4>()) else { return false };
    let same = answer.get(HEADER..asked).zip(question.get(HEADER..asked));
    u16::from_be_bytes([head[0], head[1]]) == id
        && head[2] & 0x80 != 0
        && answer.get(4..6) == Some(&[0, 1])
        && same.is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Sends as much as goes.
fn push(socket: &OwnedFd, bytes: &mut Vec<u8>) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(n) => drop(bytes.drain(..n)),
            Err(Errno::INTR) => {}
            // Not connected yet: it will say when it is.
            Err(Errno::AGAIN | Errno::NOTCONN) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads what has come; whether more can come.
fn pull(socket: &OwnedFd, into: &mut Vec<u8>) -> std::result::Result<bool, Errno> {
    let mut buffer = [0; 4096];
    // A message and its length; more waits in the kernel.
    while into.len() < TCP_MOST + 2 {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((n, _)) => into.extend(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::NOTCONN) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// The length of the message at the beginning, if it is whole.
fn framed_length(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    (bytes.len() >= length + 2).then_some(length)
}

/// Takes the message at the beginning out, if it is whole (RFC 1035, 4.2.2).
fn framed(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = framed_length(bytes)?;
    bytes.drain(..2);
    Some(bytes.drain(..length).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::super::message::kind;
    use super::*;

    const LOCAL: &str = "127.0.0.1:0";

    fn question(id: u16, name: &str, wanted: u16) -> Vec<u8> {
        let mut out = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend(label.bytes());
        }
        out.push(0);
        out.extend(wanted.to_be_bytes());
        out.extend([0, 1]);
        out
    }

    /// A server that answers each question with this code and address, by UDP and TCP at one port; how often it was asked.
    fn server(code: u8, address: [u8; 4]) -> (SocketAddr, Arc<AtomicUsize>) {
        let udp = UdpSocket::bind(LOCAL).unwrap();
        let at = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |asked: &[u8]| {
            let mut out = asked.to_vec();
            (out[2], out[3]) = (0x81, 0x80 | code);
            if code == 0 {
                out[7] = 1;
                out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                out.extend(address);
            }
            out
        };
        let count = asked.clone();
        let tcp = TcpListener::bind(at).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                // A guess that comes first: right but for its number, and with another address.
                let mut guess = answer(&buffer[..n]);
                guess[0] ^= 1;
                let last = guess.len() - 1;
                guess[last] ^= 0xff;
                udp.send_to(&guess, from).unwrap();
                udp.send_to(&answer(&buffer[..n]), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let mut buffer = [0; 512];
                let n = stream.read(&mut buffer).unwrap();
                let mut out = answer(&buffer[2..n]);
                // So long that it does not go into a packet of UDP.
                out.resize(20_000, 0);
                stream.write_all(&[&(out.len() as u16).to_be_bytes()[..], &out].concat()).unwrap();
            }
        });
        (at, asked)
    }

    /// A resolver at work in a thread, which ends with the value.
    struct Working {
        at: SocketAddr,
        _end: mpsc::Sender<()>,
    }

    fn work(servers: Vec<SocketAddr>) -> Working {
        let (udp, tcp) = open_at(LOCAL.parse().unwrap()).unwrap();
        let at = SocketAddr::try_from(rustix::net::getsockname(&udp).unwrap()).unwrap();
        let mut resolver = Resolver::new(udp, tcp).unwrap();
        let mut zone = Zone::new("net");
        zone.add(&["10.0.0.2".parse::<IpAddr>().unwrap()], ["web"]);
        resolver.set_zones(vec![zone]);
        resolver.set_servers(servers);
        let (end, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                let left = resolver.deadline().map(|at| at.saturating_duration_since(Instant::now()));
                let wait = left.unwrap_or(IDLE).min(Duration::from_millis(50));
                let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
                poll(&mut [PollFd::new(&resolver, PollFlags::IN)], Some(&wait)).unwrap();
                resolver.serve().unwrap();
            }
        });
        Working { at, _end: end }
    }

    impl Working {
        fn udp(&self, message: &[u8]) -> Vec<u8> {
            let socket = UdpSocket::bind(LOCAL).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
            socket.send_to(message, self.at).unwrap();
            let mut buffer = [0; 2000];
            let (n, _) = socket.recv_from(&mut buffer).unwrap();
            buffer[..n].to_vec()
        }

        fn tcp(&self, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
            let mut stream = TcpStream::connect(self.at).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
            let framed = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
            let all: Vec<u8> = messages.iter().flat_map(framed).collect();
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                writer.write_all(&all).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            writing.join().unwrap();
            std::iter::from_fn(|| super::framed(&mut read)).collect()
        }
    }

    fn code(answer: &[u8]) -> u8 {
        answer[3] & 15
    }

    fn last(answer: &[u8]) -> &[u8] {
        &answer[answer.len() - 4..]
    }

    #[test]
    fn what_it_knows() {
        let resolver = work(Vec::new());
        let answer = resolver.udp(&question(7, "web", kind::A));
        assert_eq!((&answer[..2], code(&answer), last(&answer)), (&[0, 7][..], 0, &[10, 0, 0, 2][..]));
        assert_eq!(code(&resolver.udp(&question(7, "nobody", kind::A))), 3);
        assert_eq!(code(&resolver.udp(&question(7, "example.com", kind::A))), 2, "there is nobody to ask");
        assert_eq!(code(&resolver.udp(&[0, 7, 1, 0])), 1);
        // As many as fit into the buffers, without waiting for the answers.
        let many: Vec<Vec<u8>> = (0..4000).map(|id| question(id, "web", kind::A)).collect();
        let answers = resolver.tcp(&many);
        assert_eq!(answers.len(), 4000);
        for (id, answer) in answers.iter().enumerate() {
            assert_eq!((&answer[..2], code(answer)), (&(id as u16).to_be_bytes()[..], 0));
        }
    }

    #[test]
    fn what_others_know() {
        let (one, asked) = server(0, [192, 0, 2, 1]);
        let resolver = work(vec![one]);
        let answer = resolver.udp(&question(9, "Example.com", kind::A));
        assert_eq!((&answer[..2], last(&answer)), (&[0, 9][..], &[192, 0, 2, 1][..]));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let answers = resolver.tcp(&[question(1, "example.com", kind::A), question(2, "web", kind::A)]);
        assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [20_000, 37]);
        assert_eq!(resolver.udp(&question(7, "web", kind::A)).len(), 37);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "what it knows is asked of nobody");
    }

    #[test]
    fn servers_that_do_not_help() {
        let ((broken, _), (good, _)) = (server(2, [0; 4]), server(0, [192, 0, 2, 7]));
        // One at whose port nobody is, one that is broken, one that works.
        let closed = UdpSocket::bind(LOCAL).unwrap().local_addr().unwrap();
        let resolver = work(vec![closed, broken, good]);
        let answer = resolver.udp(&question(9, "example.com", kind::A));
        assert_eq!((code(&answer), last(&answer)), (0, &[192, 0, 2, 7][..]));
        // Nobody helps: the broken one's own words, or ours.
        assert_eq!(code(&work(vec![closed, broken]).udp(&question(9, "example.com", kind::A))), 2);
        assert_eq!(code(&work(vec![closed]).udp(&question(9, "example.com", kind::A))), 2);
        // A name that is not there is an answer.
        let (sure, _) = server(3, [0; 4]);
        assert_eq!(code(&work(vec![sure, good]).udp(&question(9, "example.com", kind::A))), 3);
    }

    #[test]
    fn a_silent_server_costs_once() {
        let silent = UdpSocket::bind(LOCAL).unwrap();
        let (good, _) = server(0, [192, 0, 2, 7]);
        let resolver = work(vec![silent.local_addr().unwrap(), good]);
        let begun = Instant::now();
        assert_eq!(code(&resolver.udp(&question(9, "example.com", kind::A))), 0);
        assert!(begun.elapsed() >= HEDGE, "{:?}", begun.elapsed());
        assert_eq!(code(&resolver.udp(&question(9, "example.com", kind::A))), 0);
        silent.set_nonblocking(true).unwrap();
        let heard = std::iter::from_fn(|| silent.recv(&mut [0; 512]).ok()).count();
        assert_eq!(heard, 1, "the second time the one that answered was asked first");
        silent.set_nonblocking(false).unwrap();
        // All silent: an answer all the same, before the client gives up waiting.
        let resolver = work(vec![silent.local_addr().unwrap()]);
        let begun = Instant::now();
        assert_eq!(code(&resolver.udp(&question(9, "example.com", kind::A))), 2);
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    }

    #[test]
    fn whoever_holds_connections_makes_room() {
        let resolver = work(Vec::new());
        let held: Vec<TcpStream> =
            (0..MOST_CLIENTS + 10).map(|_| TcpStream::connect(resolver.at).unwrap()).collect();
        assert_eq!(code(&resolver.tcp(&[question(1, "web", kind::A)])[0]), 0);
        drop(held);
    }
}
