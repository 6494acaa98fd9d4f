//! From a configuration file to a process that can run its commands, one thing after the other.
//!
//! The daemon, `once` and `check` share these steps; each goes as far as it needs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::clock::Zone;
use crate::config::{self, Config};
use crate::error::Error;
use crate::ledger::{self, Past};
use crate::log;
use crate::plan::{self, Host, Plan, Programs, RunAs, SecretId, Source, System};
use crate::program;
use crate::runner::{Inherited, Redaction, SessionRecorder, Setting};
use crate::secret::{self, Secret};
use crate::secretbox::Secretbox;
use crate::source::{self, FailureKind, Surroundings, Variables};
use crate::sys::{self, User};

/// A validated configuration and what is legal in it but surely not meant.
pub struct Loaded {
    pub plan: Plan,
    pub host: Host,
    pub warnings: Vec<Error>,
}

/// Reads and validates `file` for this machine.
pub fn load(file: &Path) -> Result<Loaded, Vec<Error>> {
    let absolute = std::path::absolute(file).map_err(|error| vec![Error::new(file.display(), error)])?;
    load_on(file, host(absolute).map_err(|error| vec![error])?)
}

/// As `load`, for the daemon of the given surroundings.
pub fn load_on(file: &Path, host: Host) -> Result<Loaded, Vec<Error>> {
    let trusted = program::trust_walk(&host.file).map_err(|error| vec![error])?;
    let mut loaded = load_for(file, host)?;
    loaded.warnings.splice(0..0, trusted.into_iter().map(warning_text).chain(unknown_zone(&loaded.plan)));
    Ok(loaded)
}

/// Reads and validates `file` without looking at this machine.
pub fn load_offline(file: &Path) -> Result<Loaded, Vec<Error>> {
    load_for(file, Host::elsewhere(file.to_owned()))
}

fn load_for(file: &Path, host: Host) -> Result<Loaded, Vec<Error>> {
    let in_file = |problem: config::Problem| problem.in_file(file);
    let text = config::read(file).map_err(|problem| vec![in_file(problem)])?;
    let config = Config::parse(&text).map_err(|problem| vec![in_file(problem)])?;
    match Plan::from_config(&config, &host) {
        Ok((plan, warnings)) => Ok(Loaded { plan, host, warnings: warnings.into_iter().map(in_file).collect() }),
        Err(problems) => Err(problems.into_iter().map(in_file).collect()),
    }
}

/// An unknown zone is taken for UTC (tzset(3)), and nobody would notice until the first backup.
fn unknown_zone(plan: &Plan) -> Option<Error> {
    const FOLDERS: [&str; 4] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/lib/zoneinfo"];
    let value = env::var("TZ").ok().filter(|value| !value.is_empty() && plan.zone == Zone::Local)?;
    let name = value.trim_start_matches(':');
    let has_rules = name.contains(|c: char| c.is_ascii_digit()) && !name.contains('/');
    let is_known = has_rules || FOLDERS.iter().any(|folder| Path::new(folder).join(name).is_file());
    (!is_known).then(|| {
        Error::new("TZ", "names no zone that is known here, so times are UTC").hint("install tzdata, or correct it")
    })
}

pub fn warning_text(warning: program::Warning) -> Error {
    let text = Error::new(warning.object, warning.what);
    warning.hint.into_iter().fold(text, Error::hint)
}

/// What this process's surroundings say.
pub fn host(file: PathBuf) -> Result<Host, Error> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("HOME")
        .filter(|home| home.is_absolute())
        .or_else(|| sys::user_by_id(sys::effective_uid()).map(|user| user.home));
    let home = home.ok_or_else(|| Error::new("HOME", "not set, and the user database has no home directory"))?;
    Ok(Host {
        system: if cfg!(target_os = "macos") { System::MacOs } else { System::Linux },
        root: sys::effective_uid() == 0,
        home,
        current_dir: env::current_dir().unwrap_or_else(|_| "/".into()),
        file,
        xdg_runtime_dir: folder("XDG_RUNTIME_DIR"),
        xdg_state_home: folder("XDG_STATE_HOME"),
        runtime_directory: folder("RUNTIME_DIRECTORY"),
        state_directory: folder("STATE_DIRECTORY"),
        user_temp_dir: sys::default_runtime_directory(),
        find_user,
    })
}

/// `None` for this process's own user. The error says why no command can run as the user of this name.
fn find_user(name: &str) -> Result<Option<RunAs>, &'static str> {
    let user = known_user(name)?;
    match sys::effective_uid() {
        own if own == user.uid => Ok(None),
        0 => run_as(&user).map(Some),
        _ => Err("only a daemon that root runs can run commands as another user"),
    }
}

/// As `find_user`, for a daemon of root's.
pub fn find_user_for_root(name: &str) -> Result<Option<RunAs>, &'static str> {
    let user = known_user(name)?;
    if user.uid == 0 { Ok(None) } else { run_as(&user).map(Some) }
}

fn known_user(name: &str) -> Result<User, &'static str> {
    sys::user_by_name(name).ok_or("no user of this machine has this name")
}

fn run_as(user: &User) -> Result<RunAs, &'static str> {
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    Ok(RunAs {
        name: text(&user.name),
        uid: user.uid,
        gid: user.gid,
        groups: sys::groups_of(user).map_err(|_| "the groups of this user cannot be found out")?,
        home: text(user.home.as_os_str()),
        shell: text(&user.shell),
    })
}

/// A process that can run the plan's commands once it has been given their secrets.
pub struct Prepared {
    pub setting: Setting,
    pub sources: Sources,
    pub warnings: Vec<Error>,
}

/// Sets up protected memory, takes the `env:` secrets out of the environment, and looks at all
/// programs. To be called before the process has a second thread.
pub fn prepare(plan: Plan, host: &Host, socket: PathBuf, umask: u32) -> Result<Prepared, Vec<Error>> {
    let one = |error: Error| vec![error];
    let memory = secret::protect(plan.secretbox.memory).map_err(one)?;
    if let Some(reason) = &memory.fallback {
        log::warn("secrets are in locked memory, not in secret memory", &[("reason", reason)]);
    }
    let names: Vec<&str> = plan.secrets().filter_map(|(_, secret)| env_name(&secret.source)).collect();
    let variables = Variables::take(names.iter().copied(), memory.arena).map_err(one)?;
    let inherited = Inherited::new(sys::variables(), &names, host.home.as_os_str());
    let client = own_path().map_err(one)?;
    let (programs, warnings) = Programs::look_at(&plan, inherited.path(), &client);
    let secretbox = Secretbox::new(memory.arena, plan.secrets().map(|(_, secret)| secret.name.as_str()));
    let setting = Setting {
        plan: Arc::new(plan),
        programs,
        secretbox: Arc::new(secretbox),
        launchers: Arc::default(),
        client,
        socket,
        inherited,
        umask,
        redaction: Redaction::new().map_err(|error| one(Error::new("pipe", error)))?,
        record_started: never_recorded(),
        record_ended: Box::new(|_| {}),
    };
    let sources = Sources { variables, credentials: env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) };
    Ok(Prepared { setting, sources, warnings: warnings.into_iter().map(warning_text).collect() })
}

/// Folders that are not there now: in which commands of enabled tasks start, and of the metrics file.
pub fn missing_folders(plan: &Plan) -> Vec<Error> {
    let enabled = plan.tasks().map(|(_, task)| task).filter(|task| task.enabled);
    let starts = enabled.flat_map(|task| task.commands().map(|step| (step.working_directory.as_ref(), &*task.name)));
    let starts: BTreeMap<&Path, &str> = starts.collect();
    let starts = starts.into_iter().map(|(folder, task)| (folder, format!("commands of task {task} start there")));
    let metrics = plan.metrics_file.as_ref().and_then(|file| file.parent());
    let metrics = metrics.map(|folder| (folder, "`metrics_file` is to be written there".to_owned()));
    let missing = starts.chain(metrics).filter(|(folder, _)| !folder.is_dir());
    missing.map(|(folder, why)| Error::new(folder.display(), format!("there is no such folder, but {why}"))).collect()
}

/// For a process that nobody has to clean up after.
fn never_recorded() -> SessionRecorder {
    Box::new(|_| Ok(()))
}

fn env_name(source: &Source) -> Option<&str> {
    match source {
        Source::Env(name) => Some(name),
        _ => None,
    }
}

/// This program's absolute path as it was invoked, links unresolved, so that an upgrade which
/// exchanges a link keeps the path alive.
pub fn own_path() -> Result<PathBuf, Error> {
    let running = env::current_exe().map_err(|error| Error::new("backupnizza", format!("where is it? {error}")))?;
    let path = invoked_path().filter(|path| is_same_file(path, &running)).unwrap_or(running);
    match path.to_str() {
        // Within double quotes these mean something to one of those who split the command line.
        Some(text) if !text.contains(['"', '\\', '$', '`', '\n']) => Ok(path),
        _ => Err(Error::new(path.display(), "its path has characters that commands cannot be given")
            .hint("install backupnizza in a folder whose name has no quotes, backslashes or dollar signs")),
    }
}

fn invoked_path() -> Option<PathBuf> {
    let name = env::args_os().next()?;
    if name.as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let path_variable = env::var_os("PATH")?;
    program::find(name.to_str()?, &path_variable, Path::new("/")).ok()
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// Where secrets come from.
pub struct Sources {
    variables: Variables,
    credentials: Option<PathBuf>,
}

/// What came of asking several sources.
#[derive(Default)]
pub struct Asked {
    /// Wrong in themselves: asking again is of no use.
    pub wrong: Vec<Error>,
    /// Gave nothing this time.
    pub unavailable: Vec<(SecretId, Error)>,
    pub warnings: Vec<Error>,
}

impl Sources {
    /// Asks the sources of `secrets` one after the other and puts what they give into the secretbox.
    pub fn ask(&self, setting: &Setting, secrets: &[SecretId], stop: &AtomicBool) -> Asked {
        let mut asked = self.ask_for(setting, secrets, stop, |id, secret| {
            setting.secretbox.load(id, Arc::new(secret));
        });
        asked.wrong.extend(setting.renew_redaction(Vec::new()).err());
        asked
    }

    /// Forgets what it holds itself, for good.
    pub fn wipe(&self) {
        self.variables.wipe();
    }

    /// Asks the sources of `secrets` one after the other; what they give goes to `take`.
    pub fn ask_for(
        &self,
        setting: &Setting,
        secrets: &[SecretId],
        stop: &AtomicBool,
        mut take: impl FnMut(SecretId, Secret),
    ) -> Asked {
        let mut asked = Asked::default();
        let around = Surroundings { variables: &self.variables, credentials: self.credentials.clone(), stop };
        for &id in secrets {
            let spec = setting.plan.secret(id);
            let program = plan::source_program(&spec.source).map(|program| setting.programs.check(program)).transpose();
            let program = match program {
                Ok(program) => program.map(|(program, notices)| {
                    asked.warnings.extend(notices.into_iter().map(warning_text));
                    program
                }),
                Err(error) => {
                    asked.wrong.push(error);
                    continue;
                }
            };
            let path = program.as_ref().map(|program| program.path());
            match source::ask(spec, path, &around, setting.secretbox.arena()) {
                Ok(answer) => {
                    take(id, answer.secret);
                    asked.warnings.extend(answer.warnings);
                }
                Err(failure) => match failure.kind {
                    FailureKind::Wrong => asked.wrong.push(failure.error),
                    FailureKind::Unavailable => asked.unavailable.push((id, failure.error)),
                    FailureKind::Stopped => {
                        asked.wrong.push(failure.error);
                        break;
                    }
                },
            }
        }
        asked
    }
}

/// Makes the state directory and its `locks`, or makes sure that nobody else can put anything
/// there: a ledger or a lock of somebody else's making would be believed.
pub fn prepare_state_dir(folder: &Path) -> Result<(), Error> {
    for folder in [folder, &folder.join("locks")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| Error::new(folder.display(), format!("cannot make the folder: {error}")))?;
        program::trust_walk(folder)?;
        let metadata = fs::metadata(folder).map_err(|error| Error::new(folder.display(), error))?;
        if metadata.uid() != sys::effective_uid() {
            return Err(Error::new(folder.display(), "belongs to another user").hint("give a `state_dir` of your own"));
        }
        if metadata.mode() & 0o022 != 0 {
            let hint = format!("chmod go-w {}", folder.display());
            return Err(Error::new(folder.display(), "writable by others").hint(hint));
        }
    }
    Ok(())
}

/// The sockets at which a client looks for a daemon.
pub fn client_sockets(given: Option<PathBuf>) -> Result<Vec<PathBuf>, Error> {
    let variable = || env::var_os("BACKUPNIZZA_SOCKET").filter(|value| !value.is_empty()).map(PathBuf::from);
    match given.or_else(variable) {
        Some(path) => Ok(vec![path]),
        None => Ok(host(PathBuf::new())?.client_sockets()),
    }
}

/// The last `count` ends, of one task or of all, that the ledger in the default place tells; `None`
/// if there is none.
pub fn history_on_disk(task: Option<&str>, count: usize) -> Result<Option<Vec<Past>>, Error> {
    let folder = host(PathBuf::new())?.default_state_dir();
    let state = ledger::read(&folder)?;
    if let Some(name) = task
        && !state.tasks.is_empty()
        && !state.tasks.contains_key(name)
    {
        let error = Error::new(name, "there is no such task in the ledger, and no daemon to ask for others");
        return Err(match config::nearest(name, state.tasks.keys().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    let past = state.history(task);
    let last = past[past.len().saturating_sub(count)..].iter().map(|past| (*past).clone()).collect();
    Ok(if past.is_empty() { None } else { Some(last) })
}
