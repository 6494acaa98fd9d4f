//! backupnizza runs backup tools on a schedule and hands them their secrets safely.
//!
//! The files read in the order in which data flows:
//!
//! - `cli` says what the command line asks for; this file dispatches it.
//! - `config` reads the file as written, `plan` is its only validated form.
//! - `startup` makes a process ready: memory (`secret`), programs (`program`), sources (`source`).
//! - `secretbox` holds the secrets and their tokens, and gives them to those who may have them.
//! - `agenda` decides what runs when, as a pure function of `schedule`, time and events.
//! - `daemon` does what it says: `runner` runs one try, by way of `launch` and with its `output`
//!   redacted; `outcome` says what its end means, `ledger` and `log` keep it.
//! - `once` runs a task without a daemon; `report` shows tables.
//! - `sys` has all that is unsafe or differs between systems.

mod agenda;
mod cli;
mod clock;
mod config;
mod daemon;
mod error;
mod file_locks;
mod launch;
mod ledger;
mod log;
mod once;
mod outcome;
mod output;
mod plan;
mod program;
mod report;
mod runner;
mod schedule;
mod secret;
mod secretbox;
mod socket;
mod source;
mod startup;
mod sys;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use chrono::{DateTime, Utc};

use cli::{Invocation, NextOf};
use error::Error;
use once::Once;
use report::Table;
use schedule::Schedule;

const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    sys::forbid_core_files();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.is_empty() {
        let _ = io::stderr().write_all(cli::general_help().as_bytes());
        return ExitCode::from(WRONG_USAGE);
    }
    let invocation = match cli::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            log::complain(&error);
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match run(invocation) {
        Ok(status) => ExitCode::from(status),
        Err(errors) => {
            errors.iter().for_each(log::complain);
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; returns the exit status.
fn run(invocation: Invocation) -> Result<u8, Vec<Error>> {
    match invocation {
        Invocation::Daemon { config } => daemon::run(&config).map(|()| 0),
        Invocation::Check { config, secrets, offline } => check(&config, secrets, offline),
        Invocation::Once { config, task, step, command } => once::run(Once { config, task, step, command }),
        Invocation::Next { of, count, from } => next(of, count, from.unwrap_or_else(|| clock::now().wall)),
        Invocation::Secretbox { token, socket } => redeem(&token, socket),
        Invocation::Example => print(include_str!("../backup.example.yaml")),
        Invocation::Help(text) => print(&text),
        Invocation::Version => print(concat!("backupnizza ", env!("CARGO_PKG_VERSION"), "\n")),
        Invocation::Launcher => Ok(launch::run()),
    }
}

fn check(config: &Path, secrets: bool, offline: bool) -> Result<u8, Vec<Error>> {
    if offline {
        let loaded = startup::load_offline(config)?;
        loaded.warnings.iter().for_each(log::caution);
        return print_table(&report::check_table(&loaded.plan, None, clock::now().wall));
    }
    let loaded = startup::load(config)?;
    loaded.warnings.iter().for_each(log::caution);
    let socket = loaded.plan.secretbox.socket.clone();
    let prepared = startup::prepare(loaded.plan, &loaded.host, socket, 0)?;
    prepared.warnings.iter().for_each(log::caution);
    let mut problems = prepared.setting.programs.problems(&prepared.setting.plan);
    if secrets {
        let all: Vec<_> = prepared.setting.plan.secrets().map(|(id, _)| id).collect();
        let asked = prepared.sources.ask(&prepared.setting, &all, &AtomicBool::new(false));
        asked.warnings.iter().for_each(log::caution);
        problems.extend(asked.wrong);
        problems.extend(asked.unavailable.into_iter().map(|(_, error)| error));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    print_table(&report::check_table(&prepared.setting.plan, Some(&prepared.setting.programs), clock::now().wall))
}

fn next(of: NextOf, count: usize, from: DateTime<Utc>) -> Result<u8, Vec<Error>> {
    match of {
        NextOf::Schedule(text) => {
            let schedule = Schedule::parse(&text).map_err(|what| vec![Error::new("schedule", what)])?;
            let zone = clock::Zone::Local;
            let slots = report::schedule_slots(&schedule, zone, from).take(count);
            print(&slots.map(|slot| clock::format_time(slot, zone) + "\n").collect::<String>())
        }
        NextOf::Config { config, task } => {
            let plan = startup::load(&config)?.plan;
            let task = task.map(|name| once::find_task(&plan, &name)).transpose().map_err(|error| vec![error])?;
            print_table(&report::next_table(&plan, task, count, from))
        }
    }
}

fn redeem(token: &OsString, socket: Option<PathBuf>) -> Result<u8, Vec<Error>> {
    // Without the buffer of `Stdout`, which would keep a copy.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|error| Error::new("standard output", error));
    let redeemed = stdout.and_then(|stdout| {
        let sockets = startup::client_sockets(socket)?;
        secretbox::client::redeem(&sockets, token.as_encoded_bytes(), &mut File::from(stdout))
    });
    redeemed.map(|()| 0).map_err(|error| vec![error])
}

fn print_table(table: &Table) -> Result<u8, Vec<Error>> {
    print(&table.render(io::stdout().is_terminal()))
}

fn print(text: &str) -> Result<u8, Vec<Error>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(0),
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(vec![Error::new("standard output", error)]),
    }
}
