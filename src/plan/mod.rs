//! The only validated form of the configuration: what cannot be right cannot be written down here.
//!
//! `Plan::from_config` makes it, once, from the file as written; everything behind it takes its
//! word. Ids are indices that only a plan can make, so a dangling name cannot exist after load.

mod assemble;
mod build;
mod command;
mod exit_codes;
mod host;
mod layer;
mod lint;
mod pool;
mod programs;
mod scope;
mod secrets;
mod tasks;
#[cfg(test)]
pub mod testing;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Zone;
use crate::config;
use crate::error::Error;
use crate::log;
use crate::program::Sha256Digest;
use crate::schedule::Schedule;
use crate::secret::Protection;

pub use command::is_never_passed_on;
pub use host::{Host, System};
pub use programs::Programs;

/// Index of a secret in the plan that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId(u32);

/// Index of a task in the plan that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u32);

/// Index of a program in the plan that made it; commands that name the same file share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(u32);

/// Index of a lock in the plan that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockId(u32);

/// The whole configuration, validated.
#[derive(Debug)]
pub struct Plan {
    /// Absolute path of the configuration file.
    pub file: PathBuf,
    pub zone: Zone,
    pub max_concurrent_runs: usize,
    pub state_dir: PathBuf,
    pub metrics_file: Option<PathBuf>,
    pub log: LogSettings,
    pub secretbox: SecretboxSettings,
    secrets: Vec<SecretSpec>,
    programs: Vec<ProgramSpec>,
    locks: Vec<String>,
    tasks: Vec<Task>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    pub level: log::Level,
    pub format: log::Format,
}

#[derive(Debug)]
pub struct SecretboxSettings {
    /// The socket at which tokens are redeemed; the control socket stands beside it.
    pub socket: PathBuf,
    pub max_token_ttl: Duration,
    pub memory: Protection,
}

/// A named secret and where to ask for it.
#[derive(Debug)]
pub struct SecretSpec {
    pub name: String,
    pub source: Source,
    /// How long to wait for its source; `None` waits for ever.
    pub timeout: Option<Duration>,
}

#[derive(Debug)]
pub enum Source {
    /// What a command prints on its standard output.
    Command {
        program: ProgramId,
        arguments: Vec<String>,
    },
    /// A variable of the daemon's own environment.
    Env(String),
    File(PathBuf),
    /// A file of this name in systemd's `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An `op://` reference, read by 1Password's `op read`.
    OnePassword {
        program: ProgramId,
        reference: String,
    },
    /// A generic password of the macOS keychain, read by `security`.
    Keychain {
        program: ProgramId,
        service: String,
        account: Option<String>,
    },
    /// Attributes of an item of the Secret Service, looked up by `secret-tool`.
    SecretService {
        program: ProgramId,
        attributes: Vec<(String, String)>,
    },
    /// The text with which to ask on the terminal.
    Prompt(String),
}

/// A program as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgramSpec {
    pub name: String,
    /// Where a relative name with a slash starts from.
    pub base: PathBuf,
    /// The command's own `PATH`, where it has one; the daemon's otherwise.
    pub path_variable: Option<String>,
    pub sha256: Option<Sha256Digest>,
    /// As whom it runs, if not as the daemon's user.
    pub user: Option<u32>,
    /// Whether anything that can run needs it: programs of disabled tasks need not exist.
    pub needed: bool,
}

#[derive(Debug)]
pub struct Task {
    pub name: String,
    pub enabled: bool,
    pub schedules: Vec<Schedule>,
    pub order: Order,
    pub on_error: OnError,
    /// At least one.
    pub steps: Vec<Step>,
    pub finally: Vec<Step>,
    /// Shared among tasks that have the same.
    pub policy: Arc<Policy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Sequence,
    Parallel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Stop,
    Continue,
}

/// What holds for a task's runs as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// For each run from its start, counted while the machine is awake.
    pub timeout: Option<Duration>,
    pub stop: StopPolicy,
    pub retry: Retry,
    pub overlap: Overlap,
    pub missed: Missed,
    pub missed_delay: Duration,
    pub jitter: Duration,
    /// Sorted by lock, each lock once.
    pub locks: Vec<LockRequest>,
    pub only_if: Option<Box<Condition>>,
    /// Start without asking `only_if` once the last success is older than this.
    pub run_anyway_after: Option<Duration>,
    pub max_wait: Option<Duration>,
    pub max_age: MaxAge,
    pub output: OutputMode,
    pub hooks: Hooks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPolicy {
    pub signal: Signal,
    pub grace: Duration,
}

impl StopPolicy {
    pub const DEFAULT: StopPolicy = StopPolicy { signal: Signal::Int, grace: Duration::from_secs(30) };
}

/// The signals with which a command may be asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Term,
    Usr1,
    Usr2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pub times: u32,
    /// The pause before the first retry; it doubles each time.
    pub delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    Skip,
    Queue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    Run,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockRequest {
    pub lock: LockId,
    pub shared: bool,
}

/// `only_if`: a command that decides whether a due run may start.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub check: Step,
    pub recheck: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxAge {
    /// Twice the longest gap between slots.
    FromSchedule,
    Off,
    After(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    Log,
    OnFailure,
    Discard,
}

/// What to run when something happens to a task's runs. The map form of a hook is a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hooks {
    pub start: Option<Arc<Step>>,
    pub success: Option<Arc<Step>>,
    pub warning: Option<Arc<Step>>,
    pub failure: Option<Arc<Step>>,
    pub end: Option<Arc<Step>>,
    pub stale: Option<Arc<Step>>,
    pub recovery: Option<Arc<Step>>,
}

/// One command of a task (also of a hook, a condition or `finally`), with all that it is given. What
/// many commands have alike is shared among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// As written, else the program's base name, made unique in its task.
    pub name: String,
    pub program: ProgramId,
    /// Without the program's name itself; `~` is expanded.
    pub arguments: Arc<[String]>,
    /// In order of name, each name once, layers merged.
    pub environment: Arc<[(String, Value)]>,
    pub pass_environment: PassEnvironment,
    /// The secret that arrives on standard input, else `/dev/null`.
    pub stdin: Option<SecretId>,
    pub working_directory: Arc<Path>,
    /// As whom it runs, if not as the daemon's user.
    pub user: Option<Arc<RunAs>>,
    pub exit_codes: Arc<ExitCodes>,
    /// For this command alone, counted while the machine is awake.
    pub timeout: Option<Duration>,
}

/// Another user than the daemon's, as whom commands run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// All of its groups.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

/// Which of the daemon's variables a command gets besides those that all get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassEnvironment {
    All,
    Named(Vec<String>),
}

/// What a variable of a command holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// `as: command`: a command line that redeems a token.
    Token {
        secret: SecretId,
        uses: u32,
        /// `None`: `secretbox.max_token_ttl`.
        max_ttl: Option<Duration>,
    },
    /// `as: file`: `/dev/fd/N`, a pipe that holds the secret.
    File {
        secret: SecretId,
        wrap: Wrap,
    },
    /// `as: value`: the secret itself.
    Plain {
        secret: SecretId,
        wrap: Wrap,
    },
}

/// The text around a secret (`template:`); both parts empty without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrap {
    pub prefix: String,
    pub suffix: String,
}

/// What a command's exit status means. Everything not named is a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitCodes {
    pub success: CodeSet,
    pub warning: CodeSet,
    pub fatal: CodeSet,
}

/// A set of exit statuses, as inclusive ranges in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeSet(pub Vec<(u8, u8)>);

impl CodeSet {
    pub fn contains(&self, code: u8) -> bool {
        self.0.iter().any(|&(from, to)| (from..=to).contains(&code))
    }
}

impl Plan {
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = (TaskId, &Task)> {
        self.tasks.iter().enumerate().map(|(index, task)| (TaskId(index as u32), task))
    }

    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.0 as usize]
    }

    pub fn task_named(&self, name: &str) -> Option<TaskId> {
        self.tasks().find(|(_, task)| task.name == name).map(|(id, _)| id)
    }

    /// The task of this name, or an error that names one like it.
    pub fn find_task(&self, name: &str) -> Result<TaskId, Error> {
        self.task_named(name).ok_or_else(|| {
            let error = Error::new(name, "there is no such task in the configuration");
            match config::nearest(name, self.tasks().map(|(_, task)| task.name.as_str())) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    pub fn secrets(&self) -> impl ExactSizeIterator<Item = (SecretId, &SecretSpec)> {
        self.secrets.iter().enumerate().map(|(index, secret)| (SecretId(index as u32), secret))
    }

    /// Those to ask for: all but those that only disabled tasks use.
    pub fn needed_secrets(&self) -> Vec<SecretId> {
        let used = |enabled: bool| -> Vec<bool> {
            let mut used = vec![false; self.secrets.len()];
            let tasks = self.tasks.iter().filter(|task| task.enabled == enabled);
            tasks.flat_map(Task::commands).flat_map(Step::secrets).for_each(|id| used[id.index()] = true);
            used
        };
        let (by_enabled, by_disabled) = (used(true), used(false));
        let ids = self.secrets().map(|(id, _)| id);
        ids.filter(|id| by_enabled[id.index()] || !by_disabled[id.index()]).collect()
    }

    pub fn secret(&self, id: SecretId) -> &SecretSpec {
        &self.secrets[id.0 as usize]
    }

    pub fn programs(&self) -> impl ExactSizeIterator<Item = (ProgramId, &ProgramSpec)> {
        self.programs.iter().enumerate().map(|(index, program)| (ProgramId(index as u32), program))
    }

    pub fn program(&self, id: ProgramId) -> &ProgramSpec {
        &self.programs[id.0 as usize]
    }

    pub fn lock_name(&self, id: LockId) -> &str {
        &self.locks[id.0 as usize]
    }
}

impl Plan {
    /// Puts `command` in the place of all that `task` does, with the environment of its step named
    /// `step` (its first without a name) and in `directory`.
    pub fn put_in_place(
        &mut self,
        task: TaskId,
        step: Option<&str>,
        command: Vec<OsString>,
        directory: &Path,
    ) -> Result<(), Error> {
        let words = command.into_iter().map(|word| word.into_string());
        let words: Vec<String> =
            words.collect::<Result<_, _>>().map_err(|_| Error::new("the command", "is not UTF-8"))?;
        let mut words = words.into_iter();
        let name = words.next().ok_or_else(|| Error::new("the command", "is missing after `--`"))?;
        let program = ProgramId(self.programs.len() as u32);
        let task = &mut self.tasks[task.index()];
        let at = task.steps.iter().position(|own| step.is_none_or(|step| own.name == step)).unwrap_or(0);
        let mut step = task.steps.swap_remove(at);
        let own_path = step.environment.iter().find(|(name, _)| name == "PATH").and_then(|(_, value)| value.text());
        let path_variable = own_path.map(str::to_owned);
        let base = directory.to_owned();
        let user = step.user.as_ref().map(|user| user.uid);
        self.programs.push(ProgramSpec { name, base, path_variable, sha256: None, user, needed: true });
        step.program = program;
        step.arguments = words.collect();
        step.working_directory = directory.into();
        task.steps = vec![step];
        task.finally.clear();
        let policy = Arc::make_mut(&mut task.policy);
        policy.hooks = Hooks::default();
        policy.only_if = None;
        Ok(())
    }
}

/// The program that a source asks, if it asks one.
pub fn source_program(source: &Source) -> Option<ProgramId> {
    match source {
        Source::Command { program, .. }
        | Source::OnePassword { program, .. }
        | Source::Keychain { program, .. }
        | Source::SecretService { program, .. } => Some(*program),
        Source::Env(_) | Source::File(_) | Source::Credential(_) | Source::Prompt(_) => None,
    }
}

impl Value {
    fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Token { .. } | Value::File { .. } | Value::Plain { .. } => None,
        }
    }
}

impl SecretId {
    #[cfg(test)]
    pub fn first() -> SecretId {
        SecretId(0)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl TaskId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ProgramId {
    #[cfg(test)]
    pub fn any() -> ProgramId {
        ProgramId(0)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl LockId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Task {
    /// Every command of this task, its hooks and its condition too.
    pub fn commands(&self) -> impl Iterator<Item = &Step> {
        let hooks = &self.policy.hooks;
        let hooks =
            [&hooks.start, &hooks.success, &hooks.warning, &hooks.failure, &hooks.end, &hooks.stale, &hooks.recovery];
        let condition = self.policy.only_if.iter().map(|condition| &condition.check);
        let hooks = hooks.into_iter().filter_map(|hook| hook.as_deref());
        self.steps.iter().chain(&self.finally).chain(condition).chain(hooks)
    }

    /// The commands of a run itself: its steps, and those under `finally`.
    pub fn commands_of_run(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.finally)
    }

    /// The secrets that a run of this task needs before it can start, each once.
    pub fn secrets(&self) -> Vec<SecretId> {
        each_once(self.commands_of_run())
    }

    /// As `secrets`, with those of its hooks and its condition, for which no run waits.
    pub fn all_secrets(&self) -> Vec<SecretId> {
        each_once(self.commands())
    }
}

fn each_once<'a>(commands: impl Iterator<Item = &'a Step>) -> Vec<SecretId> {
    let mut ids: Vec<SecretId> = commands.flat_map(Step::secrets).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl Step {
    /// The secrets that this command is given, in order of their variables.
    pub fn secrets(&self) -> impl Iterator<Item = SecretId> {
        let from_environment = self.environment.iter().filter_map(|(_, value)| match value {
            Value::Text(_) => None,
            Value::Token { secret, .. } | Value::File { secret, .. } | Value::Plain { secret, .. } => Some(*secret),
        });
        from_environment.chain(self.stdin)
    }

    /// Whether anything that it starts calls this program, to redeem a token.
    pub fn redeems(&self) -> bool {
        self.environment.iter().any(|(_, value)| matches!(value, Value::Token { .. }))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
