//! A user attached to a container or an exec: copying, resizing, signals, the end.

use creel_client::{Client, Hijacked};

use crate::failure::Failure;
use crate::output::complain;
use crate::signals::{Signals, api_name};
use crate::streams::{self, Copying, End, Plan};
use crate::terminal::{self, RawMode};

/// What one is attached to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A container's main process.
    Container(String),
    /// An exec.
    Exec(String),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All output was delivered and the container's side closed.
    Closed,
    /// The user typed the keys that detach.
    Detached,
    /// The reader of our output has gone.
    ReaderGone,
}

/// How many times Ctrl-C, or SIGTERM, until this program gives up on passing it on.
const PATIENCE: u32 = 3;

/// A running session.
pub(crate) struct Session<'a> {
    client: &'a Client,
    target: Target,
    signals: Option<Signals>,
    copying: Copying,
    proxy: bool,
    tty: bool,
    interrupts: u32,
    detach_watched: bool,
    raw: Option<RawMode>,
}

impl<'a> Session<'a> {
    /// Begins to copy. With a terminal and standard input the user's terminal becomes raw; with `proxy`, signals go
    /// to the container instead of ending this program.
    ///
    /// # Errors
    /// The kernel's, when signals, threads or the terminal cannot be had.
    pub(crate) fn begin(
        client: &'a Client,
        target: Target,
        hijacked: Hijacked,
        plan: Plan,
        proxy: bool,
    ) -> std::io::Result<Self> {
        // Before the threads start, for they inherit the mask.
        let signals = if proxy || plan.tty { Some(Signals::catch_all()?) } else { None };
        let (tty, stdin) = (plan.tty, plan.stdin);
        let raw = if tty && stdin { RawMode::enter()? } else { None };
        let copying = streams::start(hijacked, plan)?;
        Ok(Self { client, target, signals, copying, proxy, tty, interrupts: 0, detach_watched: stdin, raw })
    }

    /// Runs a future to its end while signals are handled.
    ///
    /// # Errors
    /// When the user insists on leaving.
    pub(crate) async fn during<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(future);
        loop {
            let signal = tokio::select! {
                value = &mut future => return Ok(value),
                signal = next(&mut self.signals) => signal,
            };
            self.signal(signal).await?;
        }
    }

    /// Copies until the output ends or the user detaches.
    ///
    /// # Errors
    /// When the connection fails, or the user insists on leaving.
    pub(crate) async fn copy_to_end(&mut self) -> Result<Ended, Failure> {
        loop {
            let signal = tokio::select! {
                biased;
                detached = &mut self.copying.detached, if self.detach_watched => {
                    self.detach_watched = false;
                    if detached.is_ok() {
                        self.copying.close();
                        return Ok(Ended::Detached);
                    }
                    continue;
                }
                end = &mut self.copying.output => return match end {
                    Ok(End::Closed) | Err(_) => Ok(Ended::Closed),
                    Ok(End::ReaderGone) => Ok(Ended::ReaderGone),
                    Ok(End::Failed(e)) => {
                        Err(Failure::new(format!("copying the output: {}", crate::os_words(&e.into()))))
                    }
                },
                signal = next(&mut self.signals) => signal,
            };
            self.signal(signal).await?;
        }
    }

    /// Tells the container's terminal the size of the user's, if there is one.
    pub(crate) async fn resize(&self) {
        if let (true, Some((rows, columns))) = (self.tty, terminal::size()) {
            // The program may have ended meanwhile; nothing is lost then.
            let _ = match &self.target {
                Target::Container(id) => self.client.resize(id, rows, columns).await,
                Target::Exec(id) => self.client.exec_resize(id, rows, columns).await,
            };
        }
    }

    /// Resizes twice, so that a program that draws the screen draws it again.
    pub(crate) async fn redraw(&self) {
        if let (true, Target::Container(id), Some((rows, columns))) =
            (self.tty, &self.target, terminal::size())
        {
            let _ = self.client.resize(id, rows.saturating_add(1), columns.saturating_add(1)).await;
        }
        self.resize().await;
    }

    /// Gives the terminal back.
    pub(crate) fn leave_raw(&mut self) {
        self.raw = None;
    }

    async fn signal(&mut self, signal: i32) -> Result<(), Failure> {
        if signal == libc::SIGWINCH {
            self.resize().await;
            return Ok(());
        }
        if signal == libc::SIGINT || signal == libc::SIGTERM {
            self.interrupts += 1;
        }
        match &self.target {
            Target::Container(id) if self.proxy && self.interrupts < PATIENCE => {
                if let Err(e) = self.client.kill(id, Some(&api_name(signal))).await
                    && e.status().is_none()
                {
                    complain(&format!("passing {} on: {e}", api_name(signal)));
                }
                Ok(())
            }
            Target::Container(_) if self.proxy => {
                self.leave_raw();
                Err(Failure::new(format!("got {PATIENCE} SIGTERM/SIGINTs, forcefully exiting")))
            }
            // Signals that would not have ended us need no answer.
            _ if matches!(signal, libc::SIGCONT | libc::SIGTSTP) => Ok(()),
            _ => {
                self.leave_raw();
                Err(Failure::silent(128 + signal))
            }
        }
    }
}

async fn next(signals: &mut Option<Signals>) -> i32 {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}
