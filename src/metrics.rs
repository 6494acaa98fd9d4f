//! The state of things as a Prometheus text file, for node_exporter's textfile collector.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>; times are Unix times in seconds.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::outcome::Outcome;

/// How runs can have ended, by their metrics' label.
pub const OUTCOMES: [&str; 7] = ["success", "warning", "failure", "timeout", "stopped", "crashed", "skipped"];

/// Everything that is told, at one moment.
pub struct Snapshot<'a> {
    pub version: &'static str,
    pub tasks: Vec<TaskSnapshot<'a>>,
    /// Name, and whether it is loaded.
    pub secrets: Vec<(&'a str, bool)>,
    pub tokens_issued: u64,
    pub tokens_redeemed: u64,
    /// By reason.
    pub tokens_refused: Vec<(&'static str, u64)>,
}

pub struct TaskSnapshot<'a> {
    pub name: &'a str,
    pub last_outcome: Option<Outcome>,
    pub last_start: Option<DateTime<Utc>>,
    pub last_end: Option<DateTime<Utc>>,
    pub last_success: Option<DateTime<Utc>>,
    pub last_duration: Option<Duration>,
    pub next_start: Option<DateTime<Utc>>,
    pub is_running: bool,
    pub is_stale: bool,
    /// Since the daemon started, in the order of `OUTCOMES`.
    pub runs: [u64; OUTCOMES.len()],
}

/// The text of the file.
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut text = Text::default();
    text.family("info", "gauge", "What is running.");
    text.sample("info", &[("version", snapshot.version)], 1.0);
    let tasks = &snapshot.tasks;
    text.times("task_last_start_timestamp_seconds", "When the last run started.", tasks, |task| task.last_start);
    text.times("task_last_end_timestamp_seconds", "When the last run ended.", tasks, |task| task.last_end);
    text.times("task_last_success_timestamp_seconds", "When the last success ended.", tasks, |task| task.last_success);
    text.times("task_next_start_timestamp_seconds", "When the next slot starts a run.", tasks, |task| task.next_start);
    text.values("task_last_duration_seconds", "How long the last run took, its retries included.", tasks, |task| {
        task.last_duration.map(|duration| duration.as_secs_f64())
    });
    text.values("task_running", "Whether a run is under way.", tasks, |task| Some(flag(task.is_running)));
    text.values("task_stale", "Whether the last success is older than max_age.", tasks, |task| {
        Some(flag(task.is_stale))
    });
    text.family("task_last_outcome", "gauge", "How the last run ended: 1 for its outcome, 0 for the others.");
    for task in tasks.iter().filter(|task| task.last_outcome.is_some()) {
        for outcome in OUTCOMES {
            let is_it = task.last_outcome.is_some_and(|last| last.name() == outcome);
            text.sample("task_last_outcome", &[("task", task.name), ("outcome", outcome)], flag(is_it));
        }
    }
    text.family("task_runs_total", "counter", "Runs that ended, by outcome, since the daemon started.");
    for task in tasks {
        for (outcome, count) in OUTCOMES.iter().zip(task.runs) {
            text.sample("task_runs_total", &[("task", task.name), ("outcome", outcome)], count as f64);
        }
    }
    text.family("secret_loaded", "gauge", "Whether the secret is there.");
    for (name, loaded) in &snapshot.secrets {
        text.sample("secret_loaded", &[("secret", name)], flag(*loaded));
    }
    text.family("tokens_issued_total", "counter", "Tokens made.");
    text.sample("tokens_issued_total", &[], snapshot.tokens_issued as f64);
    text.family("tokens_redeemed_total", "counter", "Secrets handed out for a token.");
    text.sample("tokens_redeemed_total", &[], snapshot.tokens_redeemed as f64);
    text.family("tokens_refused_total", "counter", "Attempts to redeem a token that were refused, by reason.");
    for (reason, count) in &snapshot.tokens_refused {
        text.sample("tokens_refused_total", &[("reason", reason)], *count as f64);
    }
    text.0
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP backupnizza_{name} {help}\n# TYPE backupnizza_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "backupnizza_{name}");
        // Names are letters, digits and a few signs, so nothing in them needs escaping.
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        if !labels.is_empty() {
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn values(
        &mut self,
        name: &str,
        help: &str,
        tasks: &[TaskSnapshot<'_>],
        value: impl Fn(&TaskSnapshot<'_>) -> Option<f64>,
    ) {
        self.family(name, "gauge", help);
        for task in tasks {
            if let Some(value) = value(task) {
                self.sample(name, &[("task", task.name)], value);
            }
        }
    }

    fn times(
        &mut self,
        name: &str,
        help: &str,
        tasks: &[TaskSnapshot<'_>],
        time: impl Fn(&TaskSnapshot<'_>) -> Option<DateTime<Utc>>,
    ) {
        self.values(name, help, tasks, |task| time(task).map(|time| time.timestamp_millis() as f64 / 1000.0));
    }
}

/// Puts `text` into `file` in one piece: a reader sees the old file or the new one.
pub fn write(file: &Path, text: &str) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::new(file.display(), format!("cannot be written: {error}"));
    // A device or a link in its place would be replaced, and what it stands for lost.
    if fs::symlink_metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::new(file.display(), "exists and is no regular file").hint("name another `metrics_file`"));
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    // The collector reads only files that end in `.prom`.
    name.push(".new");
    let new = file.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut out = fs::File::options().write(true).create_new(true).mode(0o644).open(&new).map_err(failed)?;
    let for_all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    out.set_permissions(for_all).and_then(|()| out.write_all(text.as_bytes())).map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let link = std::env::temp_dir().join(format!("backupnizza-metrics-{}", std::process::id()));
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        let written = write(&link, "text");
        let is_still_a_link = fs::symlink_metadata(&link).expect("the link").is_symlink();
        fs::remove_file(&link).expect("the link");
        assert!(written.is_err() && is_still_a_link);
    }

    #[test]
    fn each_task_and_secret_has_its_samples() {
        let time = DateTime::from_timestamp(1_800_000_000, 500_000_000);
        let task = TaskSnapshot {
            name: "documents",
            last_outcome: Some(Outcome::Warning),
            last_start: time,
            last_end: time,
            last_success: None,
            last_duration: Some(Duration::from_millis(1500)),
            next_start: time,
            is_running: false,
            is_stale: true,
            runs: [0, 3, 0, 0, 0, 0, 0],
        };
        let text = render(&Snapshot {
            version: "1",
            tasks: vec![task],
            secrets: vec![("vault", true)],
            tokens_issued: 2,
            tokens_redeemed: 1,
            tokens_refused: vec![("spent", 1)],
        });
        for line in [
            "backupnizza_task_last_start_timestamp_seconds{task=\"documents\"} 1800000000.5",
            "backupnizza_task_last_duration_seconds{task=\"documents\"} 1.5",
            "backupnizza_task_last_outcome{task=\"documents\",outcome=\"warning\"} 1",
            "backupnizza_task_last_outcome{task=\"documents\",outcome=\"success\"} 0",
            "backupnizza_task_runs_total{task=\"documents\",outcome=\"warning\"} 3",
            "backupnizza_task_stale{task=\"documents\"} 1",
            "backupnizza_secret_loaded{secret=\"vault\"} 1",
            "backupnizza_tokens_refused_total{reason=\"spent\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("last_success_timestamp_seconds{"), "a task that never succeeded has no time of it");
    }
}
