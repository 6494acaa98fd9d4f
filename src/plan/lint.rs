//! What is legal in a plan but surely not meant.

use std::path::Path;

use super::{Plan, Step, Task, Value};
use crate::config::Problem;

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

/// Of the ways in which restic can be told its password, one is enough.
const RESTIC_PASSWORDS: [&str; 3] = ["RESTIC_PASSWORD", "RESTIC_PASSWORD_COMMAND", "RESTIC_PASSWORD_FILE"];

/// What to warn of, in the order of the file.
pub(super) fn warnings(plan: &Plan) -> Vec<Problem> {
    let mut warnings = unused_secrets(plan);
    if !plan.tasks.iter().any(|task| task.enabled) {
        warnings.push(warning("tasks", "none is enabled, so nothing will ever run", None));
    }
    for (index, task) in plan.tasks.iter().enumerate().filter(|(_, task)| task.enabled) {
        let place = format!("tasks[{index}]");
        warn_of_task(plan, task, &place, &mut warnings);
        for step in task.commands() {
            for found in warn_of_step(plan, step, &place) {
                // Steps that share an environment share its mistakes.
                if !warnings.iter().rev().take_while(|other| other.place == place).any(|other| *other == found) {
                    warnings.push(found);
                }
            }
        }
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

fn warn_of_task(plan: &Plan, task: &Task, place: &str, warnings: &mut Vec<Problem>) {
    let policy = &task.policy;
    if policy.hooks.failure.is_none() && policy.hooks.end.is_none() && plan.metrics_file.is_none() {
        let hint = "give `defaults.hooks.failure`, or `metrics_file`";
        warnings.push(warning(place, "nobody would hear of its failure", Some(hint)));
    }
    if task.schedules.is_empty() {
        warnings.push(warning(place, "has no `schedule`, so it runs by `once` and `run` only", None));
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
    let mut found = Vec::new();
    for (name, value) in step.environment.iter() {
        found.extend(warn_of_variable(name, value, place));
    }
    if !step.exit_codes.success.contains(0) {
        found.push(warning(place, "the exit status 0 of one of its commands does not count as success", None));
    }
    if is_program(plan, step, "restic") {
        let ways = step.environment.iter().filter(|(name, _)| RESTIC_PASSWORDS.contains(&name.as_str()));
        if ways.count() > 1 {
            let hint = "keep one of RESTIC_PASSWORD_COMMAND, RESTIC_PASSWORD_FILE and RESTIC_PASSWORD";
            found.push(warning(place, "restic gets its password in more than one way", Some(hint)));
        }
    }
    found
}

fn is_program(plan: &Plan, step: &Step, name: &str) -> bool {
    Path::new(&plan.program(step.program).name).file_name().is_some_and(|base| base == name)
}

/// A secret that goes another way than the variable is read.
fn warn_of_variable(name: &str, value: &Value, place: &str) -> Option<Problem> {
    let safer = PLAIN_SECRETS.iter().find(|(plain, _)| *plain == name).map(|(_, safer)| *safer);
    let (what, hint) = match value {
        Value::Text(_) => match safer {
            Some(safer) => (
                format!("{name} stands in the file for everyone who can read it"),
                format!("put it into `secrets`, then {safer}: {{secret: …, as: command}}"),
            ),
            None => return None,
        },
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
