//! How processes end, and what must happen in which order when the container does.

use std::time::{Duration, Instant};

use creel_sys::process::Ended;
use jiff::Timestamp;

use super::{DOUBT, REMEMBERED, RETRY, Shim};
use crate::control::Kind;
use crate::launch::Launcher;
use crate::proto::{Event, ExecEnd, ExitRecord, Status, files};

/// How long an exited container's shim waits for attachers and subscribers that do not read.
pub(super) const LINGER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

impl<L: Launcher> Shim<L> {
    /// A child was reaped: the container's first process, an exec's, or an orphan that the shim inherited.
    pub(super) fn process_ended(&mut self, pid: i32, ended: Ended) {
        let now = Instant::now();
        if self.init.as_ref().is_some_and(|init| init.pid == pid) && self.ended.is_none() {
            self.ended = Some((ended, Timestamp::now()));
            if self.status != Status::Exited {
                self.status = Status::Ending;
            }
            if !self.own_pids {
                self.kill_rest();
            }
            let Self { main, log, buffer, .. } = self;
            main.process_ended(now);
            main.drain(buffer, log.as_mut());
            if !self.main.is_complete(now) {
                self.kill_rest();
            }
        } else if let Some(exec) = self.execs.iter_mut().find(|e| e.process.pid == pid && e.code.is_none()) {
            exec.code = Some(ended.code());
            exec.streams.process_ended(now);
            exec.streams.drain(&mut self.buffer, None);
        }
    }

    fn kill_rest(&mut self) {
        if let Err(failure) = self.launcher.signal_all(libc::SIGKILL) {
            self.troubles.note(&format!("cannot kill what the container left running: {failure}"));
        }
    }

    /// Does what has become due: reports ended execs, ends the container, gives up on whoever is gone.
    pub(super) fn advance(&mut self) {
        let now = Instant::now();
        self.advance_execs(now);
        if let Some(failure) = self.failed.take() {
            self.init = None;
            self.main.process_ended(now);
            let record = ExitRecord {
                code: i32::from(failure.kind.run_exit_code()),
                signal: None,
                oom_killed: false,
                finished_at: Timestamp::now(),
                error: Some(failure.message),
            };
            self.finish(record);
        } else if self.status == Status::Ending && self.may_finish(now) {
            self.finish_ended();
        }
        self.main.tidy(now);
        if self.main.take_lost_input() {
            self.stdin_doubt = Some(now + DOUBT);
        }
        for exec in &mut self.execs {
            exec.streams.tidy(now);
        }
        self.execs.retain(|e| !(e.reported && e.streams.is_over()));
        self.connections.retain(|c| !c.is_over());
        if self.listener_pause.is_some_and(|at| at <= now) {
            self.listener_pause = None;
        }
        if let Some((_, retries)) = self.oom_retry.filter(|(at, _)| *at <= now) {
            self.check_oom(retries);
        }
        self.advance_log(now);
        if self.stdin_doubt.is_some_and(|at| at <= now) {
            self.stdin_doubt = None;
            // A client that went away has ended its input; with a daemon that died, nobody has said so.
            if self.has_control() {
                self.main.end_stdin();
            }
        }
        self.watch_abandonment(now);
        self.watch_linger(now);
    }

    fn advance_execs(&mut self, now: Instant) {
        let mut over = Vec::new();
        for exec in &mut self.execs {
            if let Some(code) = exec.code.filter(|_| !exec.reported && exec.streams.is_complete(now)) {
                exec.reported = true;
                exec.streams.end();
                over.push(ExecEnd { exec_id: exec.exec_id.clone(), code });
            }
        }
        for end in over {
            self.report_exec(end);
        }
    }

    fn report_exec(&mut self, end: ExecEnd) {
        if self.ended_execs.len() == REMEMBERED {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back(end.clone());
        self.tell(&Event::ExecExit(end));
    }

    /// All output was read, and execs, which die with the container, have been reported; or it took too long.
    fn may_finish(&self, now: Instant) -> bool {
        self.main.is_complete(now) && (self.execs.iter().all(|e| e.reported) || self.main.is_overdue(now))
    }

    fn finish_ended(&mut self) {
        let killed = 128 + libc::SIGKILL;
        let mut left = Vec::new();
        for exec in self.execs.iter_mut().filter(|e| !e.reported) {
            exec.reported = true;
            exec.streams.end();
            left.push(ExecEnd { exec_id: exec.exec_id.clone(), code: exec.code.unwrap_or(killed) });
        }
        for end in left {
            self.report_exec(end);
        }
        let Some((ended, finished_at)) = self.ended else { return };
        self.check_oom(0);
        let signal = match ended {
            Ended::Exited(_) => None,
            Ended::Signaled { signal, .. } => Some(signal),
        };
        let error = match self.started_at {
            Some(_) => None,
            None => Some("the container ended before its program was started".to_owned()),
        };
        self.finish(ExitRecord {
            code: ended.code(),
            signal,
            oom_killed: self.oom_kills > 0,
            finished_at,
            error,
        });
    }

    /// Log, record, streams, cgroup, event: in this order, so that whoever hears of the end finds everything in place
    /// and can start the container again under the same names.
    fn finish(&mut self, record: ExitRecord) {
        if let Some(log) = &mut self.log {
            log.finish(Timestamp::now());
            if log.file().is_waiting() {
                self.troubles.note("the log could not be written to the end: its last lines are lost");
            }
        }
        if let Err(error) = super::setup::write_json(&self.dir, files::EXIT, &record) {
            self.troubles.note(&format!("cannot write {}: {error}", files::EXIT));
        }
        self.status = Status::Exited;
        self.record = Some(record.clone());
        self.main.end();
        self.main.tidy(Instant::now());
        if let Err(failure) = self.launcher.remove() {
            self.troubles.note(&failure.message);
        }
        self.tell(&Event::Exit { record });
        self.linger = Some((Instant::now(), usize::MAX));
    }

    fn advance_log(&mut self, now: Instant) {
        let Some(log) = &mut self.log else { return };
        if self.log_retry.is_some_and(|at| at <= now) {
            log.file().flush();
            self.log_retry = None;
        }
        if !log.file().is_waiting() {
            self.log_retry = None;
        } else if self.log_retry.is_none() && self.status != Status::Exited {
            self.log_retry = Some(now + RETRY);
        }
        for note in log.file().take_notes() {
            self.troubles.note(&note);
        }
    }

    fn has_control(&self) -> bool {
        self.connections.iter().any(|c| c.kind == Kind::Control)
    }

    /// A daemon that died between spawn and start leaves nothing behind.
    fn watch_abandonment(&mut self, now: Instant) {
        let waits = matches!(self.status, Status::Idle | Status::Created) && self.ended.is_none();
        if !waits || self.has_control() {
            self.abandoned_since = None;
            return;
        }
        let since = *self.abandoned_since.get_or_insert(now);
        if now >= since + super::ABANDONED {
            self.troubles.note("no daemon came back to start the container; giving it up");
            self.abandoned_since = None;
            match self.status {
                Status::Idle => self.stop = true,
                _ => self.kill_init(),
            }
        }
    }

    /// Goes when everything was delivered, or when nobody has read for a while.
    fn watch_linger(&mut self, now: Instant) {
        let Some((since, before)) = self.linger else { return };
        let unsent = self.main.unsent()
            + self.execs.iter().map(|e| e.streams.unsent()).sum::<usize>()
            + self.connections.iter().map(|c| c.unsent()).sum::<usize>();
        if unsent == 0 {
            self.stop = true;
        } else if unsent < before {
            self.linger = Some((now, unsent));
        } else if now >= since + LINGER {
            self.troubles.note(&format!("{unsent} bytes were not read by those attached; going without"));
            self.stop = true;
        }
    }
}
