//! What the command line asks for: argv to an `Invocation`, without touching anything.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use lexopt::{Arg, Parser, ValueExt};

use crate::clock;
use crate::control;
use crate::error::Error;
use crate::launch;
use crate::service::{Manager, Scope};

/// How many slots `next` shows unless told otherwise, and how many ends `history`.
const NEXT_COUNT: usize = 5;
const HISTORY_COUNT: usize = 20;

/// A command and what is said of it, in 80 columns.
struct Command {
    name: &'static str,
    /// Its arguments; each line is a way to call it.
    usage: &'static [&'static str],
    /// For the list of all commands.
    summary: &'static str,
    /// For its own `--help`, with examples at the end.
    text: &'static str,
}

const SOCKET: &str = "
  --socket PATH   the daemon's socket, instead of $BACKUPNIZZA_SOCKET or the
                  default places
";

const COMMANDS: &[Command] = &[
    Command {
        name: "check",
        usage: &["CONFIG [--secrets] [--offline]"],
        summary: "validate a configuration and show its tasks",
        text: "Validates everything and shows each task with its schedule, its next slot, its
programs and how its secrets are delivered.

  --secrets   also ask every source that the daemon would ask at its start (not
              those that only disabled tasks use)
  --offline   leave out what depends on this machine (programs, paths), to check
              a file that is meant for another one

examples:
  backupnizza check --secrets backup.yaml
  backupnizza check --offline for-the-server.yaml",
    },
    Command {
        name: "once",
        usage: &["CONFIG TASK [--step NAME]", "CONFIG TASK [--step NAME] -- COMMAND [ARG...]"],
        summary: "run a task now, or a command with its secrets, without a daemon",
        text: "Runs a task now, without a daemon, and exits as the task ends: 0 success,
1 failure, 3 warning. It asks only the sources that the task uses, waits for the
task's locks, and leaves its schedule alone. With `-- COMMAND` that command runs
on this terminal in place of the task's own, with the task's environment and
secrets, and its exit status is passed on. A task that fails is tried again as
its `retry` says; Ctrl-C ends that.

  --step NAME   only this step; with a COMMAND, the step whose environment it
                gets

examples:
  backupnizza once backup.yaml documents
  backupnizza once backup.yaml documents -- restic init
  backupnizza once backup.yaml documents -- restic restore latest -t /tmp/r",
    },
    Command {
        name: "next",
        usage: &["CONFIG [TASK] [--count N] [--from TIME]", "--schedule EXPR [--count N] [--from TIME]"],
        summary: "show when tasks run next, or when a schedule would",
        text: "Shows when tasks run next, or when a schedule would.

  --schedule EXPR   a crontab expression or @nickname instead of a configuration
  --count N         how many slots to show of each task (5)
  --from TIME       the slots after this time (RFC 3339), not those after now

examples:
  backupnizza next backup.yaml documents
  backupnizza next --schedule '30 2 * * mon-fri' --count 10
  backupnizza next --schedule '@daily' --from 2026-03-29T00:00:00+01:00",
    },
    Command {
        name: "status",
        usage: &["[--json] [--socket PATH]"],
        summary: "show how the daemon and its tasks are",
        text: "Shows what the daemon is doing: each task with its state and what it waits for,
how its last run ended and its next slot; and which secrets are loaded. Exits
with 1 if a task is failing or stale (its last success is older than `max_age`)
or if no daemon can be reached. In a pipe it is a line a task, in tabs.

  --json          one JSON object, for programs{socket}
examples:
  backupnizza status
  backupnizza status --json | jq '.tasks[] | select(.failing or .stale)'",
    },
    Command {
        name: "history",
        usage: &["[TASK] [--count N] [--json] [--socket PATH]"],
        summary: "show how runs ended",
        text: "Shows how runs ended, the latest last; also when no daemon is running.

  --count N       how many to show (20)
  --json          one JSON object a line, for programs{socket}
examples:
  backupnizza history documents --count 5
  backupnizza history --count 1000 --json | jq 'select(.outcome == \"failure\")'",
    },
    Command {
        name: "run",
        usage: &["TASK [--detach] [--socket PATH]"],
        summary: "run a task now, in the daemon, and follow its output",
        text: "Runs a task now, in the daemon: without its `jitter` and `only_if`, but with its
locks, secrets, hooks and retries. Shows its output, redacted, and exits as it
ends: 0 success, 1 failure, 3 warning. Ctrl-C lets go of the run, which goes on
in the daemon.

  --detach        do not wait for it{socket}
examples:
  backupnizza run documents
  backupnizza run documents --detach",
    },
    Command {
        name: "stop",
        usage: &["TASK [--socket PATH]"],
        summary: "stop a task's current run",
        text: "Stops the current run of a task by its `stop_signal` and grace, and waits until
it has ended. A run that is due or waits for its next try ends at once.
{socket}
example:
  backupnizza stop documents",
    },
    Command {
        name: "lock",
        usage: &["[--socket PATH]"],
        summary: "wipe all secrets from the daemon's memory",
        text: "Wipes all secrets from the daemon's memory at once. Runs that need one stay due
until `refresh`; those that have been given one go on, and their further output
is withheld.
{socket}
example:
  backupnizza lock",
    },
    Command {
        name: "refresh",
        usage: &["[--socket PATH]"],
        summary: "ask the sources of secrets again (also: unlock)",
        text: "Asks all sources of secrets again and exchanges all secrets, or none if one
cannot be had. Looks at all programs again too, so that one that has changed may
run. `unlock` is the same. The configuration is not read again: after a change
of it end the daemon and start it again.
{socket}
example:
  backupnizza refresh",
    },
    Command {
        name: "secretbox",
        usage: &["TOKEN [--socket PATH]"],
        summary: "print the secret that a token stands for; for commands of tasks",
        text: "Prints the secret that TOKEN stands for, and nothing else. Commands of a task
call it: a variable with `as: command` holds this command line, and a token
works only inside of the command that it was made for.
{socket}
example, in the script of a task with `KEY_COMMAND: {secret: key, as: command}`:
  key=\"$(eval \"$KEY_COMMAND\")\"     # runs: backupnizza secretbox TOKEN",
    },
    Command {
        name: "service",
        usage: &["systemd CONFIG [--system | --user]", "launchd CONFIG"],
        summary: "print a service file",
        text: "Prints a service file with the paths of this machine filled in, to be installed
by hand; where it goes and how it is started is told on stderr. For systemd it
is the system's unit when run by root and the user's otherwise; for launchd, the
agent of a login session.

  --system   the unit of the system's daemon, which runs as root
  --user     the unit of your own daemon

examples:
  backupnizza service systemd backup.yaml \\
      > ~/.config/systemd/user/backupnizza.service
  backupnizza service launchd backup.yaml \\
      > ~/Library/LaunchAgents/backupnizza.plist",
    },
    Command {
        name: "example",
        usage: &[""],
        summary: "print a commented configuration to begin with",
        text: "Prints a commented configuration file to begin with.

example:
  backupnizza example > backup.yaml",
    },
];

/// Other words for commands.
const ALIASES: &[(&str, &str)] = &[("unlock", "refresh")];

/// What this process is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run the scheduler.
    Daemon {
        config: PathBuf,
    },
    Check {
        config: PathBuf,
        secrets: bool,
        offline: bool,
    },
    Once {
        config: PathBuf,
        task: String,
        step: Option<String>,
        command: Option<Vec<OsString>>,
    },
    Next {
        of: NextOf,
        count: usize,
        from: Option<DateTime<Utc>>,
    },
    Status {
        json: bool,
        socket: Option<PathBuf>,
    },
    History {
        task: Option<String>,
        count: usize,
        json: bool,
        socket: Option<PathBuf>,
    },
    Run {
        task: String,
        detach: bool,
        socket: Option<PathBuf>,
    },
    Stop {
        task: String,
        socket: Option<PathBuf>,
    },
    Lock {
        socket: Option<PathBuf>,
    },
    Refresh {
        socket: Option<PathBuf>,
    },
    Secretbox {
        token: OsString,
        socket: Option<PathBuf>,
    },
    Service {
        manager: Manager,
        config: PathBuf,
    },
    Example,
    Help(String),
    Version,
    /// Become a command; see `launch`.
    Launcher,
}

#[derive(Debug, PartialEq, Eq)]
pub enum NextOf {
    Config { config: PathBuf, task: Option<String> },
    Schedule(String),
}

/// Reads the arguments behind the program's own name.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, Error> {
    if arguments.first().is_some_and(|word| word == launch::COMMAND) {
        return Ok(Invocation::Launcher);
    }
    let mut words = Words::sort(arguments)?;
    if words.version {
        return Ok(Invocation::Version);
    }
    let command = words.command()?;
    if words.help {
        return Ok(Invocation::Help(command.map_or_else(general_help, command_help)));
    }
    let invocation = match command {
        Some("check") => Invocation::Check {
            secrets: words.flag("secrets"),
            offline: words.flag("offline"),
            config: words.config("check")?,
        },
        Some("once") => Invocation::Once {
            step: words.text("step")?,
            command: match words.trailing.take() {
                Some(command) if command.is_empty() => return Err(usage("once", "a COMMAND is missing after `--`")),
                command => command,
            },
            config: words.config("once")?,
            task: words.text_value("once", "a TASK is missing")?,
        },
        Some("next") => words.next()?,
        Some("status") => Invocation::Status { json: words.flag("json"), socket: words.socket() },
        Some("history") => Invocation::History {
            task: words.optional_text("history")?,
            count: words.count("history", HISTORY_COUNT)?.min(control::HISTORY_MAX),
            json: words.flag("json"),
            socket: words.socket(),
        },
        Some("run") => {
            Invocation::Run { task: words.task("run")?, detach: words.flag("detach"), socket: words.socket() }
        }
        Some("stop") => Invocation::Stop { task: words.task("stop")?, socket: words.socket() },
        Some("lock") => Invocation::Lock { socket: words.socket() },
        Some("refresh") => Invocation::Refresh { socket: words.socket() },
        Some("secretbox") => {
            Invocation::Secretbox { socket: words.socket(), token: words.value("secretbox", "a TOKEN is missing")? }
        }
        Some("service") => Invocation::Service { manager: words.manager()?, config: words.config("service")? },
        Some("example") => Invocation::Example,
        Some(other) => return Err(usage(other, "no such command")),
        None => Invocation::Daemon { config: words.config("")? },
    };
    words.nothing_left(command.unwrap_or_default())?;
    Ok(invocation)
}

/// The command line's words by kind.
struct Words {
    values: std::collections::VecDeque<OsString>,
    /// The first value stood behind `--`, so it is no command.
    first_is_literal: bool,
    options: Vec<(String, Option<OsString>)>,
    /// What follows `--` of `once`.
    trailing: Option<Vec<OsString>>,
    help: bool,
    version: bool,
}

/// Options that take a value.
const WITH_VALUE: &[&str] = &["step", "count", "from", "schedule", "socket"];
const FLAGS: &[&str] = &["secrets", "offline", "json", "detach", "system", "user"];

const BEFORE_COMMAND: &str = "put `--` before the command: backupnizza once CONFIG TASK -- COMMAND";

impl Words {
    fn sort(mut arguments: Vec<OsString>) -> Result<Words, Error> {
        let is_once = arguments.iter().find(|word| !is_option(word)).is_some_and(|word| word == "once");
        let end = arguments.iter().position(|word| word == "--").filter(|_| is_once);
        let trailing = end.map(|at| arguments.split_off(at).split_off(1));
        let has_trailing = trailing.is_some();
        let first_is_literal =
            arguments.iter().find(|word| !is_option(word) || *word == "--").is_some_and(|w| w == "--");
        let mut words = Words {
            values: Default::default(),
            first_is_literal,
            options: Vec::new(),
            trailing,
            help: false,
            version: false,
        };
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(|error| usage("", error))? {
            match argument {
                Arg::Value(value) => words.values.push_back(value),
                Arg::Long("help") | Arg::Short('h') => words.help = true,
                Arg::Long("version") | Arg::Short('V') => words.version = true,
                Arg::Long(name) if WITH_VALUE.contains(&name) => {
                    let name = name.to_owned();
                    let value = parser.value().map_err(|error| usage("", error))?;
                    // An empty schedule is wrong as schedules are.
                    if value.is_empty() && name != "schedule" {
                        return Err(usage("", format!("--{name} takes a value that is not empty")));
                    }
                    words.options.push((name, Some(value)));
                }
                Arg::Long(name) if FLAGS.contains(&name) => words.options.push((name.to_owned(), None)),
                Arg::Long(name) if let Some(near) = nearest_option(name) => {
                    return Err(
                        Error::new(format!("--{name}"), "no such option").hint(format!("did you mean `--{near}`?"))
                    );
                }
                Arg::Long(name) => return Err(no_such_option(&format!("--{name}"), is_once && !has_trailing)),
                Arg::Short(name) => return Err(no_such_option(&format!("-{name}"), is_once && !has_trailing)),
            }
        }
        Ok(words)
    }

    /// Takes the first word if it is a command; a file that is named like one is given as `./NAME`.
    fn command(&mut self) -> Result<Option<&'static str>, Error> {
        if !self.first_is_literal && self.values.front().is_some_and(|word| word == "help") {
            self.values.pop_front();
            self.help = true;
        }
        let Some(first) = self.values.front().filter(|_| !self.first_is_literal) else {
            return Ok(None);
        };
        let aliases = ALIASES.iter().map(|(alias, _)| *alias);
        let known = COMMANDS.iter().map(|command| command.name).chain(aliases);
        if let Some(command) = known.clone().find(|command| first == *command) {
            self.values.pop_front();
            let meant = ALIASES.iter().find(|(alias, _)| *alias == command);
            return Ok(Some(meant.map_or(command, |(_, meant)| meant)));
        }
        let Some(word) = first.to_str() else { return Ok(None) };
        if is_plain_word(word)
            && let Some(near) = crate::config::nearest(word, known)
        {
            let error = Error::new(word, "no such command");
            return Err(error.hint(format!("did you mean `{near}`? a configuration file is given as `./{word}`")));
        }
        Ok(None)
    }

    fn option(&mut self, name: &str) -> Option<OsString> {
        let at = self.options.iter().position(|(given, _)| given == name)?;
        self.options.remove(at).1
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.options.len();
        self.options.retain(|(given, _)| given != name);
        self.options.len() < before
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.option(name)
            .map(|value| value.string().map_err(|_| usage("", format!("--{name} is not UTF-8"))))
            .transpose()
    }

    fn value(&mut self, command: &str, missing: &str) -> Result<OsString, Error> {
        self.values.pop_front().filter(|value| !value.is_empty()).ok_or_else(|| usage(command, missing))
    }

    fn text_value(&mut self, command: &str, missing: &str) -> Result<String, Error> {
        self.value(command, missing)?.string().map_err(|_| usage(command, "not UTF-8"))
    }

    /// A task of a running daemon.
    fn task(&mut self, command: &str) -> Result<String, Error> {
        let missing = |error: Error| error.hint("`backupnizza status` lists the tasks");
        self.text_value(command, "a TASK is missing").map_err(missing)
    }

    fn optional_text(&mut self, command: &str) -> Result<Option<String>, Error> {
        self.values.pop_front().map(|value| value.string().map_err(|_| usage(command, "not UTF-8"))).transpose()
    }

    fn count(&mut self, command: &str, default: usize) -> Result<usize, Error> {
        let Some(count) = self.text("count")? else { return Ok(default) };
        let count = count.parse().ok().filter(|&count| count > 0);
        count.ok_or_else(|| usage(command, "--count takes a whole number from 1 on"))
    }

    fn socket(&mut self) -> Option<PathBuf> {
        self.option("socket").map(PathBuf::from)
    }

    fn config(&mut self, command: &str) -> Result<PathBuf, Error> {
        self.value(command, "a configuration file is missing").map(PathBuf::from)
    }

    fn next(&mut self) -> Result<Invocation, Error> {
        let of = match self.text("schedule")? {
            Some(schedule) => NextOf::Schedule(schedule),
            None => NextOf::Config { config: self.config("next")?, task: self.optional_text("next")? },
        };
        let count = self.count("next", NEXT_COUNT)?;
        let from = self.text("from")?.map(|time| clock::parse_time(&time)).transpose();
        let from = from.map_err(|error| usage("next", format!("--from: {error}")))?;
        Ok(Invocation::Next { of, count, from })
    }

    fn manager(&mut self) -> Result<Manager, Error> {
        let wanted = "expected `systemd` or `launchd`";
        let name = self.text_value("service", wanted)?;
        match (name.as_str(), self.flag("system"), self.flag("user")) {
            ("systemd", true, true) => Err(usage("service", "--system and --user exclude each other")),
            ("systemd", true, false) => Ok(Manager::Systemd(Some(Scope::System))),
            ("systemd", false, true) => Ok(Manager::Systemd(Some(Scope::User))),
            ("systemd", false, false) => Ok(Manager::Systemd(None)),
            ("launchd", false, _) => Ok(Manager::Launchd),
            ("launchd", true, _) => {
                Err(usage("service", "launchd's agent is always the user's, --system has no meaning"))
            }
            _ => Err(usage("service", wanted)),
        }
    }

    /// What has not been taken does not belong there.
    fn nothing_left(&self, command: &str) -> Result<(), Error> {
        if command == "once" && !self.values.is_empty() {
            return Err(Error::new(command, "too many arguments").hint(BEFORE_COMMAND));
        }
        if let Some((name, _)) = self.options.first() {
            return Err(usage(command, format!("--{name} has no meaning here")));
        }
        match self.values.front() {
            Some(_) if command.is_empty() => {
                Err(usage(command, "no such command, or too many arguments; a configuration file stands alone"))
            }
            Some(_) if command == "next" => {
                Err(usage(command, "too many arguments; a schedule is given as --schedule '…'"))
            }
            Some(_) => Err(usage(command, "too many arguments")),
            None => Ok(()),
        }
    }
}

fn no_such_option(option: &str, before_command: bool) -> Error {
    let hint = if before_command { BEFORE_COMMAND } else { "see `backupnizza --help`" };
    Error::new(option, "no such option").hint(hint)
}

fn nearest_option(name: &str) -> Option<&'static str> {
    crate::config::nearest(name, WITH_VALUE.iter().chain(FLAGS).copied())
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// A word that is meant as a command rather than as a file.
pub fn is_plain_word(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

fn usage(command: &str, what: impl std::fmt::Display) -> Error {
    let (object, hint) = match command {
        "" => ("usage".to_owned(), "see `backupnizza --help`".to_owned()),
        command => (command.to_owned(), format!("see `backupnizza {command} --help`")),
    };
    Error::new(object, what).hint(hint)
}

/// The text of `--help`.
pub fn general_help() -> String {
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let line = |name: &str, summary: &str| format!("  {name:width$}  {summary}\n");
    let commands: String = COMMANDS.iter().map(|command| line(command.name, command.summary)).collect();
    format!(
        "backupnizza runs backup tools on a schedule and hands them their secrets safely

usage: backupnizza CONFIG             run the scheduler in the foreground
       backupnizza COMMAND ...
       backupnizza COMMAND --help     what it takes, with examples
       backupnizza --help | -h | --version | -V

commands:
{commands}
exit status: 0 success, 1 failure, 2 wrong usage, 3 finished with a warning

begin with:  backupnizza example > backup.yaml
"
    )
}

fn command_help(name: &str) -> String {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return format!("{name}: no such command\n");
    };
    let usage = command.usage.iter().map(|arguments| format!("backupnizza {name} {arguments}").trim_end().to_owned());
    let usage = usage.collect::<Vec<_>>().join("\n       ");
    format!("usage: {usage}\n\n{}\n", command.text.replace("{socket}", SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(line: &str) -> Result<Invocation, Error> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_first_word_is_a_command_or_a_file() {
        let daemon = |config: &str| Ok(Invocation::Daemon { config: config.into() });
        assert_eq!(invocation("backup.yaml"), daemon("backup.yaml"));
        assert_eq!(invocation("./check"), daemon("./check"));
        assert_eq!(invocation("-- check"), daemon("check"));
        assert_eq!(invocation("example"), Ok(Invocation::Example));
    }

    #[test]
    fn options_may_stand_anywhere() {
        let wanted = Ok(Invocation::Check { config: "b.yaml".into(), secrets: true, offline: false });
        for line in ["check b.yaml --secrets", "check --secrets b.yaml", "--secrets check b.yaml"] {
            assert_eq!(invocation(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_mistyped_command_is_answered_as_such() {
        let error = invocation("chek backup.yaml").expect_err("no such command");
        assert_eq!(error.to_string(), "chek: no such command");
        assert!(error.hint.is_some_and(|hint| hint.contains("`check`")));
    }

    #[test]
    fn a_running_daemon_is_controlled() {
        let socket = || Some(PathBuf::from("/run/s"));
        let history = Invocation::History { task: Some("a".into()), count: 3, json: true, socket: None };
        assert_eq!(invocation("history a --json --count 3"), Ok(history));
        let run = Invocation::Run { task: "a".into(), detach: true, socket: socket() };
        assert_eq!(invocation("run --detach a --socket /run/s"), Ok(run));
        for word in ["refresh", "unlock"] {
            assert_eq!(invocation(word), Ok(Invocation::Refresh { socket: None }));
        }
    }

    #[test]
    fn what_follows_the_dashes_of_once_is_its_command() {
        let wanted = Invocation::Once {
            config: "b.yaml".into(),
            task: "documents".into(),
            step: Some("copy".into()),
            command: Some(["restic", "snapshots", "--json", "--", "x"].map(OsString::from).to_vec()),
        };
        assert_eq!(invocation("once b.yaml --step copy documents -- restic snapshots --json -- x"), Ok(wanted));
    }

    #[test]
    fn a_service_file_is_for_one_manager() {
        let service = |manager| Ok(Invocation::Service { manager, config: "b.yaml".into() });
        assert_eq!(invocation("service systemd b.yaml"), service(Manager::Systemd(None)));
        assert_eq!(invocation("service --user systemd b.yaml"), service(Manager::Systemd(Some(Scope::User))));
        assert_eq!(invocation("service launchd b.yaml"), service(Manager::Launchd));
        for line in
            ["service b.yaml", "service systemd", "service systemd --user --system b", "service launchd --system b"]
        {
            assert!(invocation(line).is_err(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_told() {
        for line in [
            "",
            "check",
            "once b.yaml",
            "next",
            "secretbox",
            "run",
            "stop",
            "lock x",
            "status --detach",
            "check a b",
            "example --secrets",
            "--nonsense x",
            "start b.yaml",
        ] {
            assert!(invocation(line).is_err(), "{line}");
        }
        for empty in [&["run", ""][..], &["once", "b.yaml", ""], &["status", "--socket", ""], &["secretbox", ""]] {
            assert!(parse(empty.iter().map(OsString::from).collect()).is_err(), "{empty:?}");
        }
    }

    #[test]
    fn help_is_given_for_each_command() {
        for Command { name, .. } in COMMANDS {
            let Ok(Invocation::Help(text)) = invocation(&format!("{name} --help")) else {
                panic!("no help for {name}");
            };
            assert!(text.starts_with(&format!("usage: backupnizza {name}")));
            let (_, examples) = text.split_once("\nexample").expect(name);
            assert!(examples.contains(&format!("backupnizza {name}")), "{text}");
            assert!(general_help().contains(&format!("\n  {name} ")), "{name}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        assert!(general_help().lines().all(|line| line.chars().count() <= 80));
    }
}
