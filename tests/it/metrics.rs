//! The metrics file, read by Prometheus's own tool; README.md's list of metrics and its alerts.

use crate::harness::{Sandbox, eventually, finish, needs};
use crate::readme::{self, table_keys};

const TASKS: &str = r#"
metrics_file: ~/metrics/backupnizza.prom
secrets:
  - {name: vault, file: ~/vault}
  - {name: absent, file: ~/absent}
tasks:
  - {name: good, schedule: "@daily", environment: {C: {secret: vault, as: command}}, command: [sh, -c, 'eval "$C"; eval "$C" || true']}
  - {name: bad, schedule: "@hourly", max_age: 1s, command: [sh, -c, exit 7]}
  - {name: never, schedule: "@daily", environment: {C: {secret: absent, as: command}}, command: ["true"]}
"#;

fn file_with(sandbox: &Sandbox, part: &str) -> String {
    eventually(part, || {
        let text = std::fs::read_to_string(sandbox.path("metrics/backupnizza.prom")).ok()?;
        text.contains(part).then_some(text)
    })
}

/// A file as it is after a success, a failure, and a refused token.
fn real_file(sandbox: &Sandbox) -> String {
    sandbox.write("vault", "correct horse battery staple");
    sandbox.write("metrics/kept", "");
    let mut daemon = sandbox.daemon(TASKS);
    for (task, status) in [("good", 0), ("bad", 1)] {
        let mut command = sandbox.backupnizza(["run", task]);
        command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
        finish(command).expect(status);
    }
    file_with(sandbox, "backupnizza_task_stale{task=\"bad\"} 1\n");
    daemon.stop();
    sandbox.read("metrics/backupnizza.prom")
}

#[test]
fn promtool_has_nothing_to_say_against_the_file() {
    let sandbox = Sandbox::new();
    let text = real_file(&sandbox);
    for line in [
        "backupnizza_task_last_outcome{task=\"good\",outcome=\"success\"} 1",
        "backupnizza_task_last_outcome{task=\"bad\",outcome=\"failure\"} 1",
        "backupnizza_task_runs_total{task=\"bad\",outcome=\"failure\"} 1",
        "backupnizza_secret_loaded{secret=\"vault\"} 1",
        "backupnizza_secret_loaded{secret=\"absent\"} 0",
        "backupnizza_tokens_redeemed_total 1",
        "backupnizza_tokens_refused_total{reason=\"spent\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let left: Vec<_> = std::fs::read_dir(sandbox.path("metrics")).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 2, "nothing is left beside it: {left:?}");
    if needs("promtool") {
        let mut promtool = sandbox.command("promtool");
        let file = std::fs::File::open(sandbox.path("metrics/backupnizza.prom")).expect("the file");
        promtool.args(["check", "metrics"]).stdin(file);
        let said = finish(promtool).expect(0);
        assert_eq!((said.stdout().as_str(), said.stderr.as_str()), ("", ""));
    }
}

#[test]
fn readme_lists_all_metrics() {
    let sandbox = Sandbox::new();
    let text = real_file(&sandbox);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE backupnizza_")?.split(' ').next());
    assert_eq!(table_keys("metrics"), families.collect::<Vec<_>>());
}

/// README.md's alerts on series like those above; each is to fire for its own reason alone.
const ALERTS: &str = r#"
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'backupnizza_task_last_outcome{instance="a",task="t",outcome="success"}', values: '1+0x60'}
      - {series: 'backupnizza_task_last_outcome{instance="a",task="t",outcome="failure"}', values: '0+0x60'}
      - {series: 'backupnizza_task_last_outcome{instance="b",task="t",outcome="timeout"}', values: '1+0x60'}
      - {series: 'backupnizza_task_stale{instance="a",task="t"}', values: '0+0x60'}
      - {series: 'backupnizza_task_stale{instance="c",task="t"}', values: '1+0x60'}
      - {series: 'backupnizza_task_next_start_timestamp_seconds{instance="a",task="t"}', values: '7200+0x60'}
      - {series: 'backupnizza_task_next_start_timestamp_seconds{instance="d",task="t"}', values: '60+0x60'}
      - {series: 'backupnizza_secret_loaded{instance="a",secret="s"}', values: '1+0x60'}
      - {series: 'backupnizza_secret_loaded{instance="e",secret="s"}', values: '0+0x60'}
    alert_rule_test:
      - alertname: BackupFailed
        eval_time: 50m
        exp_alerts:
          - {exp_labels: {instance: b, task: t, outcome: timeout}, exp_annotations: {summary: "b: t: timeout"}}
      - alertname: BackupStale
        eval_time: 50m
        exp_alerts:
          - {exp_labels: {instance: c, task: t}, exp_annotations: {summary: "c: t: the last success is too long ago"}}
      - alertname: BackupSchedulerGone
        eval_time: 50m
        exp_alerts:
          - {exp_labels: {instance: d}, exp_annotations: {summary: "d: slots pass, and no daemon takes them"}}
      - alertname: BackupSecretMissing
        eval_time: 50m
        exp_alerts:
          - {exp_labels: {instance: e, secret: s}, exp_annotations: {summary: "e: secret s is not loaded"}}
"#;

#[test]
fn the_alerts_of_readme_ring_when_they_should() {
    if !needs("promtool") {
        return;
    }
    let sandbox = Sandbox::new();
    let rules = readme::blocks().into_iter().find(|block| block.text.starts_with("groups:")).expect("rules");
    sandbox.write("rules.yaml", &rules.text);
    sandbox.write("alerts.yaml", ALERTS);
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "alerts.yaml"]] {
        let mut promtool = sandbox.command("promtool");
        promtool.args(arguments);
        finish(promtool).expect(0);
    }
}
