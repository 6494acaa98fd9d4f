//! Living under a service manager: the file that tells it of the daemon, and telling it that the
//! daemon is ready.
//!
//! Files are printed, never installed. What goes into them is a pure function of the plan and of
//! `Facts`, which this file gathers; `systemd` and `launchd` write them down, `needs` and `paths`
//! say what a sandbox must leave open for the plan's commands, `notify` speaks while the daemon runs.

mod launchd;
mod needs;
mod notify;
mod paths;
mod systemd;
mod template;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::plan::{Plan, Programs, Source, Step, System, Task};
use crate::startup;
use crate::sys;

pub use notify::Notifier;

/// Between the last moment at which a run may end by itself and the manager's KILL.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Where programs are by themselves; a service's PATH always has these.
const STANDARD_FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Variables by which a person's tools find their files; a user's service gets them as they are now.
const FOLDER_VARIABLES: [&str; 4] = ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"];

/// Which service file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// `None`: the system's for root, else the user's.
    Systemd(Option<Scope>),
    Launchd,
}

/// Whose service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    System,
    User,
}

/// A service file and what to say about it.
pub struct ServiceFile {
    pub text: String,
    /// Where it goes and which commands start it.
    pub advice: String,
    pub warnings: Vec<Error>,
}

/// What a service file says besides the plan; all paths are absolute.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This program.
    pub program: String,
    pub config: String,
    /// What the daemon's environment is to have.
    pub variables: Vec<(String, String)>,
    /// Of the daemon's user.
    pub home: PathBuf,
    /// How long the daemon may take to stop.
    pub stop_seconds: u64,
}

/// The service file for the configuration `file`.
pub fn make(manager: Manager, file: &Path) -> Result<ServiceFile, Vec<Error>> {
    let one = |error: Error| vec![error];
    let absolute = std::path::absolute(file).map_err(|error| one(Error::new(file.display(), error)))?;
    let mut host = startup::host(absolute).map_err(one)?;
    let is_root = host.root;
    let scope = match manager {
        Manager::Systemd(scope) => scope.unwrap_or(if is_root { Scope::System } else { Scope::User }),
        Manager::Launchd => Scope::User,
    };
    // These are another service's, if this runs under one.
    (host.runtime_directory, host.state_directory) = (None, None);
    if scope == Scope::System {
        host.root = true;
        host.find_user = startup::find_user_for_root;
        host.home = sys::user_by_id(0).map_or_else(|| "/root".into(), |root| root.home);
        (host.xdg_runtime_dir, host.xdg_state_home) = (None, None);
    }
    let loaded = startup::load_on(file, host)?;
    let path_variable = env::var_os("PATH").unwrap_or_default();
    let (programs, _) =
        Programs::look_at(&loaded.plan, &path_variable, &startup::own_path().map_err(|error| vec![error])?);
    let problems = programs.problems(&loaded.plan);
    if !problems.is_empty() {
        return Err(problems);
    }
    let plan = &loaded.plan;
    let facts = Facts {
        program: text(&startup::own_path().map_err(one)?)?,
        config: text(&plan.file)?,
        variables: variables(scope, path_for(&found(plan, &programs), &path_variable)),
        home: loaded.host.home,
        stop_seconds: stop_time(plan).as_secs(),
    };
    let mut warnings = loaded.warnings;
    warnings.extend(unreachable_secrets(plan));
    let (text, advice) = match (manager, scope) {
        (Manager::Launchd, _) => {
            warnings.extend(wrong_system(loaded.host.system, System::MacOs));
            (launchd::agent(&facts), launchd::advice(&facts))
        }
        (Manager::Systemd(_), scope) => {
            warnings.extend(wrong_system(loaded.host.system, System::Linux));
            let scoped = match scope {
                Scope::System => systemd::system_unit(plan, &facts),
                Scope::User => systemd::user_unit(plan, &facts),
            };
            if scope == Scope::System {
                warnings.extend(paths::hidden(plan, &facts));
            }
            (scoped, systemd::advice(plan, &facts, scope, is_root))
        }
    };
    Ok(ServiceFile { text, advice, warnings })
}

/// Service files are text.
fn text(path: &Path) -> Result<String, Vec<Error>> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(vec![Error::new(path.display(), "a service file cannot hold this path, expected plain text")]),
    }
}

/// The programs that the plan's commands start, where the configuration names no folder for them.
fn found(plan: &Plan, programs: &Programs) -> Vec<PathBuf> {
    let needed = plan.programs().filter(|(_, spec)| spec.needed && spec.path_variable.is_none());
    let found = needed.filter_map(|(id, spec)| Some((spec, programs.get(id).ok()?)));
    let paths = found.flat_map(|(spec, program)| {
        let main = (!spec.name.contains('/')).then(|| program.path().to_owned());
        main.into_iter().chain(program.found_by_env().map(Path::to_owned)).collect::<Vec<_>>()
    });
    paths.collect()
}

/// Those folders of the present PATH in which programs were found, in its order so that the service
/// finds the same ones, and the standard ones.
fn path_for(found: &[PathBuf], path_variable: &OsStr) -> String {
    let is_needed = |folder: &PathBuf| found.iter().any(|path| path.parent() == Some(folder));
    let mut folders: Vec<PathBuf> = env::split_paths(path_variable).filter(is_needed).collect();
    folders.extend(STANDARD_FOLDERS.map(PathBuf::from));
    let mut texts: Vec<&str> = Vec::new();
    for folder in folders.iter().filter_map(|folder| folder.to_str()) {
        if !texts.contains(&folder) {
            texts.push(folder);
        }
    }
    texts.join(":")
}

fn variables(scope: Scope, path_variable: String) -> Vec<(String, String)> {
    let mut variables = vec![("PATH".to_owned(), path_variable)];
    if scope == Scope::User {
        let given = |name: &str| env::var(name).ok().filter(|value| value.starts_with('/'));
        variables.extend(FOLDER_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), given(name)?))));
    }
    variables
}

fn enabled(plan: &Plan) -> impl Iterator<Item = &Task> {
    plan.tasks().map(|(_, task)| task).filter(|task| task.enabled)
}

/// How long the daemon may take to stop: the run that takes longest has its grace, then what is run
/// after it has its time, and the grace where it does not end by itself.
fn stop_time(plan: &Plan) -> Duration {
    let longest = enabled(plan).map(|task| {
        let grace = task.policy.stop.grace;
        let hooks = &task.policy.hooks;
        let own = [&hooks.success, &hooks.warning, &hooks.failure].map(|hook| time(hook.as_deref(), grace));
        let later = [&hooks.recovery, &hooks.end].map(|hook| time(hook.as_deref(), grace));
        let finally = task.finally.iter().map(|step| time(Some(step), grace));
        let after: Duration =
            finally.chain(later).chain(own.into_iter().max()).fold(Duration::ZERO, Duration::saturating_add);
        grace.saturating_add(after)
    });
    longest.max().unwrap_or_default().saturating_add(STOP_MARGIN)
}

fn time(step: Option<&Step>, grace: Duration) -> Duration {
    step.and_then(|step| step.timeout).map_or(Duration::ZERO, |timeout| timeout.saturating_add(grace))
}

/// Secrets that a service has no way to come by.
fn unreachable_secrets(plan: &Plan) -> Vec<Error> {
    let needed = plan.needed_secrets().into_iter().map(|id| plan.secret(id));
    let warning = |name: &str, what: &str, hint: &str| Some(Error::new(format!("secret {name}"), what).hint(hint));
    let warnings = needed.filter_map(|secret| match &secret.source {
        Source::Prompt(_) => {
            warning(&secret.name, "asks on a terminal, which a service has not", "give it another source")
        }
        Source::Env(_) => warning(
            &secret.name,
            "is read from the environment, which the service file does not fill",
            "give it another source, `credential` under systemd, `keychain` on macOS",
        ),
        _ => None,
    });
    warnings.collect()
}

fn wrong_system(this: System, wanted: System) -> Option<Error> {
    let hint = "run the command on the machine that the service is for";
    (this != wanted)
        .then(|| Error::new("service", "the paths are those of this machine, which has another system").hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::plan::Host;

    /// The plan of a configuration on some other machine, as root's there.
    pub fn plan(text: &str) -> Plan {
        let config = Config::parse(text).expect("a configuration");
        let host = Host { root: true, home: "/root".into(), ..Host::elsewhere("/etc/backup.yaml".into()) };
        Plan::from_config(&config, &host).expect("a good configuration").0
    }

    pub fn facts() -> Facts {
        Facts {
            program: "/usr/local/bin/backupnizza".to_owned(),
            config: "/etc/my backups/100%.yaml".to_owned(),
            variables: vec![("PATH".to_owned(), "/opt/my tools:/usr/bin".to_owned())],
            home: "/root".into(),
            stop_seconds: 40,
        }
    }

    #[test]
    fn the_path_has_the_folders_of_the_programs_in_their_order_and_the_standard_ones() {
        let path_variable = OsStr::new("/unused:/opt/b:/usr/bin:/opt/a");
        let found = ["/opt/a/restic", "/opt/b/rclone", "/usr/bin/sh"].map(PathBuf::from);
        assert_eq!(
            path_for(&found, path_variable),
            "/opt/b:/usr/bin:/opt/a:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"
        );
    }

    #[test]
    fn the_time_to_stop_is_ten_seconds_above_the_longest() {
        let seconds = |text: &str| stop_time(&plan(text)).as_secs();
        assert_eq!(seconds("tasks: [{name: a, command: [x]}]"), 40);
        assert_eq!(seconds("tasks: [{name: a, command: [x]}, {name: b, command: [x], stop_grace: 5m}]"), 310);
        assert_eq!(
            seconds("tasks: [{name: a, command: [x]}, {name: b, command: [x], stop_grace: 5m, enabled: false}]"),
            40
        );
        // Each has its minute and the grace.
        assert_eq!(seconds("tasks: [{name: a, command: [x], finally: [[y], [z]]}]"), 30 + 2 * 90 + 10);
        let hooks = "{success: [y], failure: {command: [z], timeout: 2m}, end: [y]}";
        assert_eq!(seconds(&format!("tasks: [{{name: a, command: [x], hooks: {hooks}}}]")), 30 + 150 + 90 + 10);
    }

    #[test]
    fn secrets_that_a_service_cannot_come_by_are_told() {
        let plan = plan(
            "secrets: [{name: a, prompt: 'a: '}, {name: b, env: B}, {name: c, credential: c}]\ntasks: [{name: t, command: [x]}]",
        );
        let told: Vec<String> = unreachable_secrets(&plan).iter().map(|error| error.object.clone()).collect();
        assert_eq!(told, ["secret a", "secret b"]);
    }
}
