//! Connections: accepting them, telling what each is, attaching.

use std::os::fd::OwnedFd;
use std::time::Instant;

use creel_types::ErrorKind;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::{RETRY, Shim};
use crate::attacher::Attacher;
use crate::control::{Connection, Kind};
use crate::failure;
use crate::framing;
use crate::launch::Launcher;
use crate::proto::{
    Attach, Call, Event, ExecStart, Failure, Opening, Outcome, Reply, Request, Status, StreamReply,
};

impl<L: Launcher> Shim<L> {
    pub(super) fn accept(&mut self) {
        loop {
            match rustix::net::accept_with(&self.listener.fd, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let id = self.new_id();
                    self.connections.push(Connection::new(id, socket));
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.troubles.note(&format!("cannot accept connections: {error}; trying again"));
                    self.listener_pause = Some(Instant::now() + RETRY);
                    return;
                }
            }
        }
    }

    pub(super) fn serve_connection(&mut self, id: u64, flags: PollFlags) {
        let Some(mut at) = self.connections.iter().position(|c| c.id == id) else { return };
        if flags.contains(PollFlags::OUT) {
            self.connections[at].flush();
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.connections[at].receive(&mut self.buffer);
        }
        while let Some(line) = self.connections[at].next_line() {
            if self.connections[at].kind == Kind::New && is_opening(&line) {
                let connection = self.connections.remove(at);
                self.open_stream(connection, &line);
                return;
            }
            self.serve_line(at, &line);
            // Serving a call changes no connection's place, but be sure.
            match self.connections.iter().position(|c| c.id == id) {
                Some(now) => at = now,
                None => return,
            }
        }
    }

    fn serve_line(&mut self, at: usize, line: &[u8]) {
        self.connections[at].kind = Kind::Control;
        let (seq, outcome, subscribe) = match framing::decode::<Request>(line) {
            Ok(Request { seq, call }) => {
                let subscribe = call == Call::Subscribe;
                let outcome = match self.call(call) {
                    Ok(answer) => Outcome::Ok(answer),
                    Err(failure) => Outcome::Error(failure),
                };
                (seq, outcome, subscribe)
            }
            Err(error) => (0, Outcome::Error(failure(ErrorKind::InvalidArgument, error.to_string())), false),
        };
        let connection = &mut self.connections[at];
        connection.reply(Reply { seq, outcome });
        if subscribe {
            connection.subscribed = true;
            if let Some(record) = self.record.clone().filter(|_| self.status == Status::Exited) {
                connection.tell(&Event::Exit { record });
            }
        }
    }

    fn open_stream(&mut self, connection: Connection, line: &[u8]) {
        let opening = match framing::decode::<Opening>(line) {
            Ok(opening) => opening,
            Err(error) => {
                return self.refuse(connection, failure(ErrorKind::InvalidArgument, error.to_string()));
            }
        };
        match opening {
            Opening::Attach(attach) => self.attach(connection, attach),
            Opening::Exec(start) => self.attach_new_exec(connection, start),
        }
    }

    fn refuse(&mut self, mut connection: Connection, failure: Failure) {
        connection.send(&StreamReply::Error(failure));
        connection.kind = Kind::Closing;
        if !connection.is_over() {
            self.connections.push(connection);
        }
    }

    fn attach(&mut self, connection: Connection, attach: Attach) {
        let (streams, pid) = match &attach.exec_id {
            None if matches!(self.status, Status::Ending | Status::Exited) => {
                let message = "cannot attach: the container has ended".to_owned();
                return self.refuse(connection, failure(ErrorKind::Conflict, message));
            }
            None => (&mut self.main, self.init.as_ref().map(|init| init.pid)),
            Some(id) => match self.execs.iter_mut().find(|e| e.exec_id == *id && !e.reported) {
                Some(exec) => (&mut exec.streams, Some(exec.process.pid)),
                None => {
                    let message = format!("cannot attach: no exec {id} runs in the container");
                    return self.refuse(connection, failure(ErrorKind::NotFound, message));
                }
            },
        };
        let id = connection.id;
        let (socket, input) = connection.into_stream();
        streams.attach(attacher(id, socket, attach, pid), &input);
    }

    fn attach_new_exec(&mut self, connection: Connection, start: ExecStart) {
        match self.exec(&start, true) {
            Ok(pid) => {
                let id = connection.id;
                let (socket, input) = connection.into_stream();
                let attacher = attacher(id, socket, start.attach, Some(pid));
                // The exec is the latest: nothing ran since it was made.
                if let Some(exec) = self.execs.last_mut() {
                    exec.streams.attach(attacher, &input);
                }
            }
            Err(failure) => self.refuse(connection, failure),
        }
    }
}

fn attacher(id: u64, socket: OwnedFd, wants: Attach, pid: Option<i32>) -> Attacher {
    let first = framing::encode(&StreamReply::Ok { pid }).unwrap_or_default();
    Attacher::new(id, socket, wants, &first)
}

/// Whether a first line opens a stream: its only key says so.
fn is_opening(line: &[u8]) -> bool {
    let text: Vec<u8> = line.iter().copied().filter(|b| !b.is_ascii_whitespace()).take(9).collect();
    text == br#"{"attach""# || text.starts_with(br#"{"exec":"#)
}
