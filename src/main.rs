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
//!   redacted; `outcome` says what its end means, `ledger`, `log` and `metrics` keep it.
//! - `service` prints the service manager's file and tells it how the daemon is.
//! - `control` lets people ask the daemon things, over a socket (`socket`); `report` shows the answers.
//! - `once` runs a task without a daemon; `file_locks` keep the two out of each other's way.
//! - `sys` has all that is unsafe or differs between systems.

mod agenda;
mod cli;
mod clock;
mod config;
mod control;
mod daemon;
mod error;
mod file_locks;
mod launch;
mod ledger;
mod log;
mod metrics;
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
mod service;
mod socket;
mod source;
mod startup;
mod sys;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use chrono::{DateTime, Utc};

use cli::{Invocation, NextOf};
use control::Request;
use control::client::{Conversation, Followed};
use error::Error;
use once::Once;
use outcome::Outcome;
use report::{Output, Table};
use schedule::Schedule;
use service::Manager;

const FAILURE: u8 = 1;
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    sys::forbid_core_files();
    log::report_panics();
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
    let status = run(invocation).unwrap_or_else(|errors| {
        errors.iter().for_each(log::complain);
        FAILURE
    });
    log::finish();
    ExitCode::from(status)
}

/// Does what was asked; returns the exit status.
fn run(invocation: Invocation) -> Result<u8, Vec<Error>> {
    match invocation {
        Invocation::Daemon { config } => daemon::run(&config).map(|()| 0).map_err(|errors| no_command(&config, errors)),
        Invocation::Check { config, secrets, offline } => check(&config, secrets, offline),
        Invocation::Once { config, task, step, command } => once::run(Once { config, task, step, command }),
        Invocation::Next { of, count, from } => next(of, count, from.unwrap_or_else(|| clock::now().wall)),
        Invocation::Status { json, socket } => one(status(json, socket)),
        Invocation::History { task, count, json, socket } => one(history(task, count, json, socket)),
        Invocation::Run { task, detach, socket } => one(run_in_daemon(task, detach, socket)),
        Invocation::Stop { task, socket } => one(stop(task, socket)),
        Invocation::Lock { socket } => one(secrets(
            Request::Lock,
            socket,
            "all secrets are wiped; runs that need one wait for `backupnizza refresh`",
        )),
        Invocation::Refresh { socket } => {
            one(secrets(Request::Refresh, socket, "all secrets are renewed, all programs looked at again"))
        }
        Invocation::Secretbox { token, socket } => redeem(&token, socket),
        Invocation::Service { manager, config } => service(manager, &config),
        Invocation::Example => print(include_str!("../backup.example.yaml")),
        Invocation::Help(text) => print(&text),
        Invocation::Version => print(concat!("backupnizza ", env!("CARGO_PKG_VERSION"), "\n")),
        Invocation::Launcher => Ok(launch::run()),
    }
}

/// A word that is no file was perhaps meant as a command.
fn no_command(config: &Path, mut errors: Vec<Error>) -> Vec<Error> {
    let is_word = config.to_str().is_some_and(cli::is_plain_word);
    if let Some(error) = errors.first_mut().filter(|_| is_word && !config.exists()) {
        error.hint = Some(format!("`{}` is no command either, see `backupnizza --help`", config.display()));
    }
    errors
}

/// Words that are no file were perhaps meant as a schedule.
fn no_schedule(config: &Path, mut errors: Vec<Error>) -> Vec<Error> {
    let is_schedule = config.to_str().is_some_and(|text| Schedule::parse(text).is_ok());
    if let Some(error) = errors.first_mut().filter(|_| is_schedule && !config.exists()) {
        error.hint = Some(format!("a schedule is given as --schedule '{}'", config.display()));
    }
    errors
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
    startup::missing_folders(&prepared.setting.plan).iter().for_each(log::caution);
    let mut problems = prepared.setting.programs.problems(&prepared.setting.plan);
    if secrets {
        let needed = prepared.setting.plan.needed_secrets();
        let asked = prepared.sources.ask(&prepared.setting, &needed, &AtomicBool::new(false));
        asked.warnings.iter().for_each(log::caution);
        // Of a program that is wrong it has been said so above.
        let is_known = |error: &Error| {
            problems.iter().any(|known| known.object == error.object && known.what.starts_with(&error.what))
        };
        let wrong: Vec<Error> = asked.wrong.into_iter().filter(|error| !is_known(error)).collect();
        problems.extend(wrong);
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
            let slots: String = slots.map(|slot| clock::format_time(slot, zone) + "\n").collect();
            if slots.is_empty() {
                log::caution(&Error::new("schedule", "has no slot that a clock could tell"));
            }
            print(&slots)
        }
        NextOf::Config { config, task } => {
            let plan = startup::load(&config).map_err(|errors| no_schedule(&config, errors))?.plan;
            let task = task.map(|name| plan.find_task(&name)).transpose().map_err(|error| vec![error])?;
            if let Some(task) = task.map(|task| plan.task(task)).filter(|task| !task.enabled) {
                log::caution(&Error::new(&task.name, "is not enabled, so it has no slots"));
            }
            print_table(&report::next_table(&plan, task, count, from))
        }
    }
}

fn service(manager: Manager, config: &Path) -> Result<u8, Vec<Error>> {
    let file = service::make(manager, config)?;
    file.warnings.iter().for_each(log::caution);
    let status = print(&file.text)?;
    let _ = io::stderr().write_all(format!("\n{}", file.advice).as_bytes());
    Ok(status)
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

fn one(result: Result<u8, Error>) -> Result<u8, Vec<Error>> {
    result.map_err(|error| vec![error])
}

fn ask(request: &Request, socket: Option<PathBuf>) -> Result<Conversation, Error> {
    Conversation::begin(&startup::client_sockets(socket)?, request)
}

fn status(json: bool, socket: Option<PathBuf>) -> Result<u8, Error> {
    let status = ask(&Request::Status, socket)?.status()?;
    print_text(&if json { status.json() } else { status.render(output(), clock::now().wall) })?;
    Ok(u8::from(!status.is_ok()))
}

/// What the daemon says, or, where there is none, what the last one has left in the default place.
fn history(task: Option<String>, count: usize, json: bool, socket: Option<PathBuf>) -> Result<u8, Error> {
    let is_elsewhere = socket.is_some();
    let asked = ask(&Request::History { task: task.clone(), count }, socket);
    let (past, zone) = match asked {
        Ok(conversation) => conversation.history()?,
        Err(error) if is_elsewhere => return Err(error),
        Err(error) => (startup::history_on_disk(task.as_deref(), count)?.ok_or(error)?, clock::Zone::Local),
    };
    print_text(&match json {
        true => report::history_json(&past, zone),
        false => report::history_table(&past, zone, output()),
    })?;
    Ok(0)
}

fn run_in_daemon(task: String, detach: bool, socket: Option<PathBuf>) -> Result<u8, Error> {
    let conversation = ask(&Request::Run { task: task.clone(), detach }, socket)?;
    Ok(match conversation.follow(&mut io::stdout().lock(), &mut note)? {
        Followed::ToEnd(outcome) => outcome.exit_status(),
        Followed::Detached(run) => {
            let what = run.map_or("the run still waits".to_owned(), |run| format!("run {run} goes on"));
            note(&format!("detached; {what}, `backupnizza stop {task}` stops it"));
            Outcome::Stopped.exit_status()
        }
        Followed::Told => {
            note(&format!("{task} is to run; `backupnizza status` tells how it goes"));
            0
        }
    })
}

fn stop(task: String, socket: Option<PathBuf>) -> Result<u8, Error> {
    let conversation = ask(&Request::Stop { task }, socket)?;
    match conversation.follow(&mut io::sink(), &mut note)? {
        Followed::ToEnd(_) | Followed::Told => Ok(0),
        Followed::Detached(_) => {
            note("detached; the run is still being stopped, `backupnizza status` tells");
            Ok(1)
        }
    }
}

/// `done` tells a person that it worked.
fn secrets(request: Request, socket: Option<PathBuf>, done: &str) -> Result<u8, Error> {
    ask(&request, socket)?.finish(&mut note)?;
    note(done);
    Ok(0)
}

/// Something for a person who waits.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "backupnizza: {}", error::printable(text));
}

/// How standard output is to be written to.
fn output() -> Output {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return Output::Pipe;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|&columns| columns > 0);
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Output::Terminal { width: told.or_else(|| sys::terminal_width(&stdout)), colour }
}

fn print_table(table: &Table) -> Result<u8, Vec<Error>> {
    print(&table.render(output()))
}

fn print(text: &str) -> Result<u8, Vec<Error>> {
    one(print_text(text).map(|()| 0))
}

fn print_text(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Error::new("standard output", error)),
    }
}
