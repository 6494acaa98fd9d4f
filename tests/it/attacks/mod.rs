//! Attacks: what thieves and vandals try, each from outside against a real daemon. A file per promise.
//!
//! Where a thief polls, it polls for a fixed number of runs and must end with nothing; where what it
//! does could fail for a reason of its own, it is let loose on something open first.

// What stands in memory, and who can look at it.
mod launches;
mod limits;
mod memory;
mod peeking;

// The sockets: tokens, peers, places.
mod connections;
mod sockets;
mod tokens;

// Secrets come whole, and into no log.
mod silence;
mod values;

// What others could exchange, or make.
mod configuration;
mod programs;

// A machine that is small or hostile.
mod surroundings;

mod scan;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Running, Sandbox, needs, running};

/// A secret as long as a passphrase is, without a repetition in it.
const SECRET: &str = "Xk9-Tq2wVz7_Lm4rBn8sHd6jPf3cGy5t";

/// Builds the thief in the sandbox, where its user can start it; `None` without a compiler.
fn thief(sandbox: &Sandbox) -> Option<PathBuf> {
    if !needs("cc") {
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/attacks/thief.c");
    let thief = sandbox.path("bin/thief");
    let built = Command::new("cc").arg("-O1").arg("-o").arg(&thief).arg(source).status();
    assert!(built.is_ok_and(|status| status.success()), "a thief");
    Some(thief)
}

/// Starts `program` as the sandbox's user.
fn start<'a>(sandbox: &Sandbox, program: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Running {
    running(sandbox.command(program).args(arguments))
}

/// The text of a path of this suite's own making.
fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
