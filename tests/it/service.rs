//! Living under a service manager: what systemd and a parser of property lists say of the printed
//! files, what a manager hears from the daemon, and how the log looks to the journal.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Daemon, PATIENCE, Sandbox, finish, needs};

/// With all that a service file has something to say about.
const CONFIG: &str = r#"
state_dir: /srv/some state/100%
metrics_file: /srv/metrics/backupnizza.prom
secrets:
  - {name: vault, credential: vault-password}
defaults:
  environment: {RESTIC_REPOSITORY: "/srv/my vault", RESTIC_PASSWORD_COMMAND: {secret: vault, as: command}}
  hooks: {failure: [sh, -c, "cat > /dev/null"]}
tasks:
  - {name: documents, schedule: "30 2 * * *", stop_grace: 2m, command: [sh, -c, "restic backup ~"]}
  - {name: private, schedule: "@daily", command: [tool-of-mine]}
"#;

/// Prints a service file for `config`.
fn service_file(sandbox: &Sandbox, arguments: &[&str], config: &str) -> (String, String) {
    sandbox.script("bin/tool-of-mine", "#!/bin/sh\n");
    sandbox.write("my 100% $x.yaml", config);
    let arguments = ["service"].iter().chain(arguments).chain(&["my 100% $x.yaml"]).copied();
    let printed = finish(sandbox.backupnizza(arguments)).expect(0);
    (printed.stdout(), printed.stderr)
}

fn analyze(sandbox: &Sandbox, arguments: &[&str], unit: &Path) -> String {
    let mut command = sandbox.command("systemd-analyze");
    let output = command.args(arguments).arg(unit).output().expect("systemd-analyze");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}: {text}", output.status);
    text
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    if !needs("systemd-analyze") {
        return;
    }
    let sandbox = Sandbox::new();
    for (arguments, user) in [(["systemd", "--system"], "--system"), (["systemd", "--user"], "--user")] {
        let (unit, _) = service_file(&sandbox, &arguments, CONFIG);
        let file = sandbox.write("backupnizza.service", &unit);
        assert_eq!(analyze(&sandbox, &["verify", "--man=no", user], &file), "", "{unit}");
    }
}

#[test]
fn the_system_unit_exposes_little() {
    if !needs("systemd-analyze") {
        return;
    }
    let sandbox = Sandbox::new();
    let (unit, _) = service_file(&sandbox, &["systemd", "--system"], CONFIG);
    let file = sandbox.write("backupnizza.service", &unit);
    // Fails above the threshold, in tenths.
    analyze(&sandbox, &["security", "--offline=yes", "--no-pager", "--threshold=20"], &file);
}

#[test]
fn the_system_unit_opens_what_the_tasks_write_and_gives_them_time() {
    let sandbox = Sandbox::new();
    let (unit, advice) = service_file(&sandbox, &["systemd", "--system"], CONFIG);
    let home = sandbox.home().display().to_string();
    for line in [
        "Type=notify",
        "LoadCredential=vault-password:/etc/credstore/vault-password",
        "ReadWritePaths=\"-/srv/my vault\"",
        "ReadWritePaths=\"-/srv/some state/100%%\"",
        "ReadWritePaths=\"-/srv/metrics\"",
        "ReadWritePaths=\"-/root/.cache\"",
        "ProtectHome=read-only",
        "TimeoutStartSec=infinity",
        // The grace, the hook's minute and the grace again, ten seconds.
        "TimeoutStopSec=310s",
        "KillMode=mixed",
        "RuntimeDirectory=backupnizza",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
    assert!(unit.contains(&format!("\nEnvironment=\"PATH={home}/bin:")), "{unit}");
    assert!(unit.contains(&format!("\" \"{home}/my 100%% $$x.yaml\"\n")), "{unit}");
    for part in ["/etc/systemd/system/backupnizza.service", "systemctl enable --now backupnizza", "vault-password"] {
        assert!(advice.contains(part), "{part}: {advice}");
    }
    // The tests' folder is a temporary one, which the service would not see.
    assert!(advice.contains("backupnizza: warning: "), "{advice}");
}

#[test]
fn the_system_unit_lets_root_become_the_users_of_tasks() {
    let sandbox = Sandbox::new();
    let config = "tasks: [{name: t, user: nobody, command: [\"true\"]}]";
    let (unit, _) = service_file(&sandbox, &["systemd", "--system"], config);
    for line in [
        "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN",
        "SystemCallFilter=@setuid setgroups setgroups32 capset fchown",
        "RuntimeDirectoryMode=0711",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
    if needs("systemd-analyze") {
        let file = sandbox.write("backupnizza.service", &unit);
        assert_eq!(analyze(&sandbox, &["verify", "--man=no", "--system"], &file), "");
    }
}

#[test]
fn the_users_unit_is_for_the_user() {
    let sandbox = Sandbox::new();
    let (unit, advice) = service_file(&sandbox, &["systemd", "--user"], CONFIG);
    let home = sandbox.home().display().to_string();
    assert!(
        unit.contains(&format!("LoadCredential=vault-password:{home}/.config/credstore/vault-password\n")),
        "{unit}"
    );
    assert!(unit.contains(&format!("Environment=\"XDG_STATE_HOME={}\"\n", sandbox.state_dir().display())), "{unit}");
    assert!(unit.contains("loginctl enable-linger"), "{unit}");
    assert!(advice.contains("systemctl --user enable --now backupnizza"), "{advice}");
    assert!(advice.contains(&format!("{home}/.config/systemd/user/backupnizza.service")), "{advice}");
    let (unasked, _) = service_file(&sandbox, &["systemd"], CONFIG);
    let id = finish(sandbox.command("id")).stdout();
    assert_eq!(unasked == unit, !id.starts_with("uid=0("), "{id}");
}

#[test]
fn the_property_list_can_be_read() {
    if !needs("python3") {
        return;
    }
    const READ: &str = r#"
import plistlib, sys
agent = plistlib.load(open(sys.argv[1], "rb"))
assert agent["ProgramArguments"][0].startswith("/"), agent
assert agent["ProgramArguments"][1] == sys.argv[2], agent
assert agent["KeepAlive"] is True and agent["RunAtLoad"] is True, agent
assert agent["ExitTimeOut"] == 310, agent
assert agent["EnvironmentVariables"]["PATH"].split(":")[0] == sys.argv[3] + "/bin", agent
assert agent["StandardErrorPath"] == sys.argv[3] + "/Library/Logs/backupnizza.log", agent
"#;
    let sandbox = Sandbox::new();
    sandbox.script("bin/tool-of-mine", "#!/bin/sh\n");
    let config = sandbox.write("a <b> & \"c\" -- d.yaml", CONFIG);
    let mut command = sandbox.backupnizza(["service", "launchd"]);
    let printed = finish({
        command.arg(&config);
        command
    })
    .expect(0);
    let file = sandbox.write("backupnizza.plist", &printed.stdout);
    let mut read = sandbox.command("python3");
    read.args(["-c", READ]).arg(&file).arg(&config).arg(sandbox.home());
    // Under the name that the tests have, whatever a version manager makes of it.
    read.env("HOME", std::env::var_os("HOME").unwrap_or_default());
    finish(read).expect(0);
    assert!(printed.stdout().contains("Full\n     Disk Access"), "{}", printed.stdout());
    assert!(printed.stderr.contains("launchctl bootstrap gui/"), "{}", printed.stderr);
}

#[test]
fn a_program_that_is_missing_is_told_before_it_is_a_service() {
    let sandbox = Sandbox::new();
    sandbox.config("tasks: [{name: t, schedule: \"@daily\", command: [no-such-tool]}]");
    let refused = finish(sandbox.backupnizza(["service", "systemd", "backup.yaml"])).expect(1);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("no-such-tool"), "{}", refused.stderr);
}

/// A service manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn hear(&self) -> String {
        let mut message = [0; 4096];
        let len = self.0.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..len]).into_owned()
    }

    /// All that comes up to a message that begins like this.
    fn hear_until(&self, head: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear());
            if heard.last().is_some_and(|message| message.starts_with(head)) {
                return heard;
            }
        }
    }
}

/// Starts and stops a daemon whose manager listens at `socket`, which the daemon knows as `address`.
fn hears_all(sandbox: &Sandbox, socket: UnixDatagram, address: &OsStr) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let manager = Manager(socket);
    sandbox.config(
        "secrets: [{name: s, command: [sh, -c, 'until [ -e ~/go ]; do sleep 0.02; done; echo a good secret']}]\n\
         tasks: [{name: documents, schedule: \"30 2 * * *\", environment: {S: {secret: s, as: value}}, command: [\"true\"]}]",
    );
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::start(command);
    manager.0.set_nonblocking(true).expect("a socket");
    assert!(manager.0.recv(&mut [0; 64]).is_err(), "it is not ready without its secrets");
    manager.0.set_nonblocking(false).expect("a socket");
    sandbox.signal("go");

    assert_eq!(manager.hear(), "READY=1");
    assert!(sandbox.socket().exists());
    let status = manager.hear();
    assert!(status.starts_with("STATUS=next slot ") && status.ends_with(" (documents)"), "{status}");
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    daemon.signal("TERM");
    let before = manager.hear_until("STOPPING=1");
    assert!(before.iter().rev().skip(1).all(|message| message == "WATCHDOG=1"), "{before:?}");
    assert!(daemon.wait().success());
}

#[test]
fn a_manager_hears_when_the_daemon_is_ready_what_is_next_that_it_lives_and_that_it_stops() {
    let sandbox = Sandbox::new();
    let path = sandbox.runtime_dir().join("notify");
    hears_all(&sandbox, UnixDatagram::bind(&path).expect("a socket"), path.as_os_str());
}

#[cfg(target_os = "linux")]
#[test]
fn a_managers_socket_may_be_in_no_file_system() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("backupnizza-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    hears_all(&Sandbox::new(), socket, OsStr::new(&format!("@{name}")));
}

#[test]
fn a_watchdog_of_another_process_is_not_answered() {
    let sandbox = Sandbox::new();
    let path = sandbox.runtime_dir().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    sandbox.config("tasks: [{name: t, schedule: \"@start\", command: [\"true\"]}]");
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut daemon = Daemon::start(command);
    daemon.wait_for_end("t");
    daemon.stop();
    let heard = manager.hear_until("STOPPING=1");
    assert_eq!(heard[0], "READY=1");
    assert!(!heard.iter().any(|message| message.starts_with("WATCHDOG")), "{heard:?}");
}

#[test]
fn a_manager_that_is_gone_stops_nothing() {
    let sandbox = Sandbox::new();
    sandbox.config("tasks: [{name: t, schedule: \"@start\", command: [\"true\"]}]");
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("NOTIFY_SOCKET", sandbox.path("nobody")).env("WATCHDOG_USEC", "1000");
    let mut daemon = Daemon::start(command);
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
}

/// What a daemon writes to stderr, which is a file, when `JOURNAL_STREAM` says that the journal has
/// the file of this inode.
fn journal(format: &str, inode_off: u64) -> String {
    let sandbox = Sandbox::new();
    sandbox.config(&format!(
        "log: {{format: {format}}}\ntasks: [{{name: t, schedule: \"@start\", command: [sh, -c, 'echo said; exit 1'], hooks: {{end: [sh, -c, 'touch ended']}}}}]"
    ));
    let stderr = File::create(sandbox.path("stderr")).expect("a file");
    let metadata = stderr.metadata().expect("its inode");
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino() + inode_off));
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("a daemon");
    sandbox.await_file("ended");
    crate::harness::signal(child.id(), "TERM");
    assert!(child.wait().expect("a child").success());
    let mut text = String::new();
    File::open(sandbox.path("stderr")).and_then(|mut file| file.read_to_string(&mut text)).expect("the log");
    text
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    let log = journal("text", 0);
    assert!(log.lines().any(|line| line.starts_with("<6>info  ready version=")), "{log}");
    assert!(log.lines().any(|line| line.starts_with("<6>info  task=t") && line.ends_with("| said")), "{log}");
    assert!(log.lines().any(|line| line.starts_with("<3>error run ended task=t")), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
}

#[test]
fn json_has_the_same_keys_in_every_line() {
    let log = journal("json", 0);
    let mut about = Vec::new();
    for line in log.lines() {
        assert!(line.starts_with('<'), "{log}");
        let event: serde_yaml::Mapping = serde_yaml::from_str(&line[3..]).expect("JSON");
        let keys: Vec<&str> = event.keys().filter_map(|key| key.as_str()).collect();
        assert_eq!(keys[..3], ["time", "level", "message"], "{line}");
        about.push((event["message"].as_str().expect("a text").to_owned(), keys[3..].join(" ")));
    }
    for (message, keys) in [
        ("ready", "version config zone offset memory tasks next"),
        ("run started", "task run slot cause attempt"),
        ("said", "task step run"),
        ("run ended", "task run outcome took exit_code"),
    ] {
        assert!(about.iter().any(|event| *event == (message.to_owned(), keys.to_owned())), "{message}: {about:?}");
    }
}

#[test]
fn another_stderr_than_the_journals_has_times() {
    let log = journal("text", 1);
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
}
