//! The control socket: what people ask of a running daemon, and what it answers.
//!
//! A client sends one line; the daemon answers with lines until the one that ends its answer.
//! `wire` is how they read, `listener` the daemon's end, `client` the other. Whoever may connect
//! may control the daemon and read its tasks' output; secrets and tokens are not among it.

pub mod client;
pub mod listener;
mod wire;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::ledger::Past;
use crate::outcome::{Outcome, RunId};
use crate::report::{DaemonStatus, SecretStatus, TaskStatus};

/// The most that a `history` tells.
pub const HISTORY_MAX: usize = 100_000;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Status,
    /// The last `count` ends, of one task or of all.
    History {
        task: Option<String>,
        count: usize,
    },
    Run {
        task: String,
        detach: bool,
    },
    Stop {
        task: String,
    },
    Lock,
    Refresh,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Daemon(DaemonStatus),
    Secret(SecretStatus),
    Task(Box<TaskStatus>),
    Past(Box<Past>),
    /// Something to tell a person while they wait.
    Note(String),
    /// The run that was asked for has started.
    Started(RunId),
    /// One line of its output, redacted.
    Output(String),
    /// How it ended, or the slot that came to nothing. Ends the answer.
    Ended {
        run: Option<RunId>,
        outcome: Outcome,
        exit_code: Option<i32>,
        took: Option<Duration>,
    },
    /// Ends the answer.
    Failed(Error),
    /// Ends the answer.
    Done,
    /// The daemon does not understand this client. Ends the answer.
    OtherVersion,
}

impl Reply {
    pub fn is_last(&self) -> bool {
        matches!(self, Reply::Ended { .. } | Reply::Failed(_) | Reply::Done | Reply::OtherVersion)
    }
}

/// The control socket that stands beside the one for tokens.
pub fn socket_beside(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".control");
    path.into()
}

#[cfg(test)]
mod fuzz;
