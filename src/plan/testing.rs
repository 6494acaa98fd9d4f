//! Plans without a file, for the tests of what works by them.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::schedule::Schedule;

/// A plan of these tasks, with secrets and locks enough, in UTC.
pub fn plan(tasks: Vec<Task>, max_concurrent_runs: usize) -> Plan {
    Plan {
        file: PathBuf::from("/backup.yaml"),
        zone: Zone::Utc,
        max_concurrent_runs,
        state_dir: PathBuf::from("/state"),
        metrics_file: None,
        log: LogSettings { level: log::Level::Info, format: log::Format::Text },
        secretbox: SecretboxSettings {
            socket: PathBuf::from("/socket"),
            max_token_ttl: Duration::from_secs(10),
            memory: crate::secret::Protection::Locked,
        },
        secrets: (0..8).map(secret_spec).collect(),
        programs: Vec::new(),
        locks: (0..8).map(|index| format!("lock{index}")).collect(),
        tasks,
    }
}

fn secret_spec(index: u32) -> SecretSpec {
    SecretSpec { name: format!("secret{index}"), source: Source::Env("SECRET".to_string()), timeout: None }
}

pub fn secret(index: u32) -> SecretId {
    SecretId(index)
}

pub fn exclusive(index: u32) -> LockRequest {
    LockRequest { lock: LockId(index), shared: false }
}

pub fn shared(index: u32) -> LockRequest {
    LockRequest { lock: LockId(index), shared: true }
}

/// A task with the default policy.
pub fn task(name: &str, schedules: &[&str]) -> Task {
    Task {
        name: name.to_string(),
        enabled: true,
        schedules: schedules.iter().map(|text| Schedule::parse(text).expect("a schedule")).collect(),
        order: Order::Sequence,
        on_error: OnError::Stop,
        steps: vec![step(None)],
        finally: Vec::new(),
        policy: Arc::new(default_policy()),
    }
}

/// A step that is given a secret, or none.
pub fn step(stdin: Option<SecretId>) -> Step {
    Step {
        name: "step".to_string(),
        program: ProgramId(0),
        arguments: [].into(),
        environment: [].into(),
        pass_environment: PassEnvironment::Named(Vec::new()),
        stdin,
        user: None,
        working_directory: Path::new("/").into(),
        exit_codes: Arc::new(ExitCodes {
            success: CodeSet(vec![(0, 0)]),
            warning: CodeSet::default(),
            fatal: CodeSet::default(),
        }),
        timeout: None,
    }
}

/// The policy of a task, to be changed.
pub fn policy(task: &mut Task) -> &mut Policy {
    Arc::make_mut(&mut task.policy)
}

fn default_policy() -> Policy {
    Policy {
        timeout: None,
        stop: StopPolicy { signal: Signal::Int, grace: Duration::from_secs(30) },
        retry: Retry { times: 0, delay: Duration::from_secs(60) },
        overlap: Overlap::Skip,
        missed: Missed::Run,
        missed_delay: Duration::from_secs(60),
        jitter: Duration::ZERO,
        locks: Vec::new(),
        only_if: None,
        run_anyway_after: None,
        max_wait: None,
        max_age: MaxAge::Off,
        output: OutputMode::Log,
        hooks: Hooks::default(),
    }
}
