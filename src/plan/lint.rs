//! What is legal in a plan but surely not meant.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Overlap, Plan, Step, Task, Value};
use crate::clock::Zone;
use crate::config::Problem;
use crate::schedule::Calendars;

/// More warnings are counted, not told.
const WARNINGS_MAX: usize = 100;

/// The longest year.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// From where the calendar is looked at for gaps between slots, 2026-01-01; any other day gives the same.
const GAPS_FROM: DateTime<Utc> = DateTime::from_timestamp(1_767_225_600, 0).expect("a time");

/// Programs that expand variables themselves, or have another machine's shell do it.
const EXPANDERS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "env", "ssh"];

/// Programs of which it is known how they read their variables, and how those begin.
const TOOLS: [&str; 3] = ["restic", "rclone", "borg"];
const TOOL_VARIABLES: [&str; 9] = ["RESTIC_", "RCLONE_", "BORG_", "AWS_", "B2_", "AZURE_", "GOOGLE_", "OS_", "ST_"];

/// What joins and redirects commands in a shell. A `;` is left out, as find takes one.
const OPERATORS: [&str; 8] = ["&&", "||", "|", ">", ">>", "<", "2>", "2>&1"];

/// Variables whose value is a secret, for which there is no safer one.
const ONLY_PLAIN: [&str; 6] =
    ["AWS_SECRET_ACCESS_KEY", "B2_ACCOUNT_KEY", "AZURE_ACCOUNT_KEY", "OS_PASSWORD", "ST_KEY", "PGPASSWORD"];

/// Variables whose value is a secret itself, and the ones that hold it in a safer way.
const PLAIN_SECRETS: [(&str, &str); 5] = [
    ("RESTIC_PASSWORD", "RESTIC_PASSWORD_COMMAND"),
    ("RESTIC_FROM_PASSWORD", "RESTIC_FROM_PASSWORD_COMMAND"),
    ("BORG_PASSPHRASE", "BORG_PASSCOMMAND"),
    ("BORG_NEW_PASSPHRASE", "BORG_PASSCOMMAND"),
    ("RCLONE_CONFIG_PASS", "RCLONE_PASSWORD_COMMAND"),
];

/// Variables that name a file with the secret in it.
const SECRET_FILES: [&str; 2] = ["RESTIC_PASSWORD_FILE", "RESTIC_FROM_PASSWORD_FILE"];

/// Variables that hold a command which prints the secret.
const SECRET_COMMANDS: [&str; 4] =
    ["RESTIC_PASSWORD_COMMAND", "RESTIC_FROM_PASSWORD_COMMAND", "BORG_PASSCOMMAND", "RCLONE_PASSWORD_COMMAND"];

/// The ways in which a program can be told one password, of which one is enough.
struct Ways {
    program: &'static str,
    password: &'static str,
    variables: &'static [&'static str],
    options: &'static [&'static str],
}

const WAYS: [Ways; 3] = [
    Ways {
        program: "restic",
        password: "its password",
        variables: &["RESTIC_PASSWORD_COMMAND", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD"],
        options: &["--password-command", "--password-file", "-p"],
    },
    Ways {
        program: "restic",
        password: "the password of the other repository",
        variables: &["RESTIC_FROM_PASSWORD_COMMAND", "RESTIC_FROM_PASSWORD_FILE", "RESTIC_FROM_PASSWORD"],
        options: &["--from-password-command", "--from-password-file"],
    },
    Ways {
        program: "borg",
        password: "its passphrase",
        variables: &["BORG_PASSCOMMAND", "BORG_PASSPHRASE_FD", "BORG_PASSPHRASE"],
        options: &[],
    },
];

/// What to warn of, in the order of the file.
pub(super) fn warnings(plan: &Plan) -> Vec<Problem> {
    let mut warnings = unused_secrets(plan);
    let enabled = || plan.tasks.iter().enumerate().filter(|(_, task)| task.enabled);
    if enabled().next().is_none() {
        warnings.push(warning("tasks", "none is enabled, so nothing will ever run", None));
    }
    let all_unheard = enabled().count() > 1 && enabled().all(|(_, task)| is_unheard(plan, task));
    if all_unheard {
        warnings.push(unheard("tasks", "nobody would hear of the failure of any"));
    }
    let mut calendars = Calendars::default();
    let mut place = String::new();
    for (index, task) in enabled() {
        place.clear();
        let _ = write!(place, "tasks[{index}]");
        if !all_unheard && is_unheard(plan, task) {
            warnings.push(unheard(&place, "nobody would hear of its failure"));
        }
        warn_of_task(task, &place, &mut calendars, &mut warnings);
        for step in task.commands() {
            for found in warn_of_step(plan, step, &place) {
                // Steps that share an environment share its mistakes.
                if !warnings.iter().rev().take_while(|other| other.place == place).any(|other| *other == found) {
                    warnings.push(found);
                }
            }
        }
    }
    let more = warnings.len().saturating_sub(WARNINGS_MAX);
    warnings.truncate(WARNINGS_MAX);
    if more > 0 {
        warnings.push(warning("", format!("{more} further warnings are not shown"), None));
    }
    warnings
}

fn warning(place: &str, what: impl Into<String>, hint: Option<&str>) -> Problem {
    Problem::new(place, what, hint)
}

fn unused_secrets(plan: &Plan) -> Vec<Problem> {
    let mut used = vec![false; plan.secrets.len()];
    let ids = plan.tasks.iter().flat_map(Task::commands).flat_map(Step::secrets);
    ids.for_each(|id| used[id.index()] = true);
    let unused = used.iter().enumerate().filter(|(_, used)| !**used);
    unused.map(|(index, _)| warning(&format!("secrets[{index}]"), "no task uses this secret", None)).collect()
}

fn is_unheard(plan: &Plan, task: &Task) -> bool {
    let hooks = &task.policy.hooks;
    hooks.failure.is_none() && hooks.end.is_none() && plan.metrics_file.is_none()
}

fn unheard(place: &str, what: &str) -> Problem {
    warning(place, what, Some("give `defaults.hooks.failure`, or `metrics_file`"))
}

fn warn_of_task(task: &Task, place: &str, calendars: &mut Calendars, warnings: &mut Vec<Problem>) {
    let policy = &task.policy;
    if task.schedules.is_empty() {
        warnings.push(warning(place, "has no `schedule`, so it runs by `once` and `run` only", None));
    }
    let gaps = task.schedules.iter().filter_map(|schedule| calendars.longest_gap(schedule, GAPS_FROM, Zone::Utc));
    let gaps: Vec<Duration> = gaps.collect();
    if gaps.iter().any(|gap| *gap > YEAR) {
        warnings.push(warning(place, "a schedule of it has no slot for more than a year at a time", None));
    }
    if let (Some(timeout), Some(interval)) = (policy.timeout, gaps.iter().min())
        && timeout > *interval
        && policy.overlap == Overlap::Skip
    {
        let hint = "make it shorter, or queue runs by `overlap: queue`";
        warnings.push(warning(place, "its `timeout` is longer than the time between its slots", Some(hint)));
    }
    if policy.run_anyway_after.is_some() && policy.only_if.is_none() {
        warnings.push(warning(place, "`run_anyway_after` means nothing without `only_if`", None));
    }
    if let Some(timeout) = policy.timeout
        && task.steps.iter().any(|step| step.timeout.is_some_and(|own| own > timeout))
    {
        warnings.push(warning(place, "the `timeout` of a step is longer than that of the whole run", None));
    }
}

fn warn_of_step(plan: &Plan, step: &Step, place: &str) -> Vec<Problem> {
    let mut found = warn_of_shell(plan, step, place);
    let program = Path::new(&plan.program(step.program).name).file_name().and_then(|name| name.to_str());
    for (name, value) in step.environment.iter() {
        found.extend(warn_of_variable(name, value, place));
        found.extend(warn_of_token(program, name, value, place));
    }
    if !step.exit_codes.success.contains(0) {
        found.push(warning(place, "the exit status 0 of one of its commands does not count as success", None));
    }
    for ways in WAYS.iter().filter(|ways| program == Some(ways.program)) {
        if ways.count(step) > 1 {
            let (first, last) = (ways.variables[..ways.variables.len() - 1].join(", "), ways.variables.last());
            let hint = last.map(|last| format!("keep one of {first} and {last}"));
            let what = format!("{} gets {} in more than one way", ways.program, ways.password);
            found.push(warning(place, what, hint.as_deref()));
        }
    }
    found
}

/// What a shell would read, where there is none: variables and operators.
fn warn_of_shell(plan: &Plan, step: &Step, place: &str) -> Vec<Problem> {
    let hint = "`~/` stands for the home directory; for more take a shell: [sh, -c, \"…\"]";
    let variables = step.environment.iter().filter(|(_, value)| value.text().is_some_and(is_variable));
    let variables = variables
        .filter(|(name, _)| can_be_named(name))
        .map(|(name, _)| format!("{name} begins with the name of a variable"));
    let arguments = step.arguments.iter().filter(|argument| is_variable(argument)).take(1);
    let arguments = arguments.map(|_| "an argument of a command begins with the name of a variable".to_owned());
    let operator = OPERATORS.iter().find(|operator| step.arguments.iter().any(|argument| argument == *operator));
    let operator = operator.map(|operator| format!("an argument of a command is `{operator}`, which no shell reads"));
    let unexpanded = variables.chain(arguments).map(|what| what + ", which nothing expands");
    let found: Vec<Problem> = unexpanded.chain(operator).map(|what| warning(place, what, Some(hint))).collect();
    let is_expander = |word: &String| {
        let name = Path::new(word).file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| EXPANDERS.contains(&name))
    };
    let mut words = [&plan.program(step.program).name].into_iter().chain(step.arguments.iter());
    if found.is_empty() || words.any(is_expander) { Vec::new() } else { found }
}

/// Whether `text` begins as a shell's variable: `${…`, or `$NAME` at its end or before a slash. `$RECYCLE.BIN` is a
/// folder.
fn is_variable(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('$') else { return false };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let behind = rest.trim_start_matches(is_name);
    rest.starts_with('{')
        || (rest.starts_with(|c: char| c.is_ascii_alphabetic()) && (behind.is_empty() || behind.starts_with('/')))
}

impl Ways {
    /// In how many ways `step` is told the password.
    fn count(&self, step: &Step) -> usize {
        let is_empty = |value: &Value| matches!(value, Value::Text(text) if text.is_empty());
        let given = |(name, value): &&(String, Value)| self.variables.contains(&name.as_str()) && !is_empty(value);
        let option = |argument: &&String| self.options.contains(&argument.split('=').next().unwrap_or_default());
        step.environment.iter().filter(given).count() + step.arguments.iter().filter(option).count()
    }
}

/// Whether a variable's name is one that tools use (environ(7)); in another a value may have slipped.
fn can_be_named(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A token where the tool takes what the variable holds for the secret itself.
fn warn_of_token(program: Option<&str>, name: &str, value: &Value, place: &str) -> Option<Problem> {
    let is_known = PLAIN_SECRETS.iter().any(|(plain, _)| *plain == name) || SECRET_FILES.contains(&name);
    let program = program.filter(|program| TOOLS.contains(program))?;
    let is_read =
        TOOL_VARIABLES.iter().any(|head| name.starts_with(head)) && !name.ends_with("COMMAND") && can_be_named(name);
    (matches!(value, Value::Token { .. }) && is_read && !is_known).then(|| {
        warning(place, format!("{program} reads {name} as it is, not as a command"), Some("`as: value` fits it"))
    })
}

/// A secret that goes another way than the variable is read.
fn warn_of_variable(name: &str, value: &Value, place: &str) -> Option<Problem> {
    let safer = PLAIN_SECRETS.iter().find(|(plain, _)| *plain == name).map(|(_, safer)| *safer);
    let (what, hint) = match value {
        Value::Text(text) if text.is_empty() => return None,
        Value::Text(_) => {
            let (variable, way) = match safer {
                Some(safer) => (safer, "command"),
                None if ONLY_PLAIN.contains(&name) => (name, "value"),
                None => return None,
            };
            (
                format!("{name} stands in the file for everyone who can read it"),
                format!("put it into `secrets`, then {variable}: {{secret: …, as: {way}}}"),
            )
        }
        Value::Plain { .. } => match (safer, SECRET_COMMANDS.contains(&name), SECRET_FILES.contains(&name)) {
            (Some(safer), _, _) => (
                format!("{name} holds the secret itself, which the command's children inherit"),
                format!("{safer}: {{secret: …, as: command}} hands it out once"),
            ),
            (_, true, _) => (format!("{name} holds a command, not the secret"), "`as: command` fits it".to_string()),
            (_, _, true) => {
                (format!("{name} names a file, it does not hold the secret"), "`as: file` fits it".to_string())
            }
            _ => return None,
        },
        Value::Token { .. } => match (safer, SECRET_FILES.contains(&name)) {
            (Some(safer), _) => (
                format!("{name} holds the secret itself, a command would be taken for it"),
                format!("give {safer} instead"),
            ),
            (_, true) => (format!("{name} names a file, not a command"), "`as: file` fits it".to_string()),
            _ => return None,
        },
        Value::File { .. } => match (safer, SECRET_COMMANDS.contains(&name)) {
            (Some(safer), _) => (
                format!("{name} holds the secret itself, the name of a file would be taken for it"),
                format!("give {safer} with `as: command` instead"),
            ),
            (_, true) => {
                (format!("{name} holds a command, not the name of a file"), "`as: command` fits it".to_string())
            }
            _ => return None,
        },
    };
    Some(warning(place, what, Some(&hint)))
}
