//! A token that was seen is of no use to anyone but its own step, whatever the thief pretends to be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{SECRET, start, text, thief};
use crate::harness::{Daemon, Sandbox, finish, needs, needs_root};

/// A task that shows its token, waits, and redeems it then. `script` is run in between.
fn config(script: &str) -> String {
    format!(
        r#"
secrets: [{{name: vault, file: ~/vault}}]
tasks:
  - name: t
    schedule: "@start"
    environment: {{VAULT: {{secret: vault, as: command, max_ttl: 1h}}}}
    command: [sh, -c, 'echo $$ > session; printf %s "$VAULT" > new; mv new leaked; {script}; await ~/go; eval "$VAULT" > own']
  - {{name: other, environment: {{OWN: {{secret: vault, as: command}}}}, command: [sh, -c, '{{ thief redeem "$BACKUPNIZZA_SOCKET" $(tail -c 64 leaked); eval "$OWN"; }} > other']}}
"#
    )
}

struct Leaked {
    token: String,
    /// Of the task's process, which is the number of its session and group too.
    pid: String,
    socket: String,
}

impl Leaked {
    fn await_in(sandbox: &Sandbox) -> Leaked {
        sandbox.await_file("leaked");
        let leaked = sandbox.read("leaked");
        let token = leaked[leaked.len() - 64..].to_owned();
        Leaked { token, pid: sandbox.read("session").trim().to_owned(), socket: text(&sandbox.socket()).to_owned() }
    }
}

fn daemon(sandbox: &Sandbox, script: &str) -> (Daemon, Leaked) {
    sandbox.write("vault", SECRET);
    let daemon = sandbox.daemon(&config(script));
    let leaked = Leaked::await_in(sandbox);
    (daemon, leaked)
}

/// All that thieves did has spent nothing: the task itself still gets its secret.
fn assert_unspent(sandbox: &Sandbox, daemon: &Daemon, leaked: &Leaked) {
    sandbox.signal("go");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("own"), SECRET);
    for secret in [SECRET, &leaked.token] {
        assert!(!daemon.log().contains(secret), "{}", daemon.log());
    }
}

#[test]
fn a_token_is_refused_to_thieves_of_the_same_user() {
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    let (daemon, leaked) = daemon(&sandbox, "true");
    let Leaked { token, pid, socket } = &leaked;
    let outside = start(&sandbox, &thief, ["redeem", socket, token]).finish().expect(0);
    assert_eq!(outside.stdout(), "redeem 0\n");
    // A process group ends at its session's border.
    let joined = start(&sandbox, &thief, ["join", pid, socket, token]).finish().expect(0);
    assert_eq!(joined.stdout(), "join refused\nredeem 0\n");
    // A task with a token of its own, so it may speak.
    let mut run = sandbox.backupnizza(["run", "other"]);
    run.env("BACKUPNIZZA_SOCKET", socket);
    finish(run).expect(0);
    assert_eq!(sandbox.read("other"), format!("redeem 0\n{SECRET}"));
    daemon.wait_for(&["warn", "token refused", "the token belongs to another session"]);
    assert_unspent(&sandbox, &daemon, &leaked);
}

#[test]
fn a_token_is_refused_to_other_users_even_in_its_session_and_to_root() {
    if !needs_root() || !needs("setpriv") {
        return;
    }
    let sandbox = Sandbox::new();
    let Some(thief) = thief(&sandbox) else { return };
    // As if somebody had opened all doors on the way.
    let script = r#"chmod 711 ~/.. ~ ~/bin ~/../run; chmod 755 ~/bin/thief; chmod 666 "$BACKUPNIZZA_SOCKET"; setpriv --reuid=64321 --regid=64321 --clear-groups ~/bin/thief redeem "$BACKUPNIZZA_SOCKET" $(tail -c 64 leaked) > stolen"#;
    let (daemon, leaked) = daemon(&sandbox, &format!("{script}; touch tried"));
    sandbox.await_file("tried");
    assert_eq!(sandbox.read("stolen"), "redeem 0\n");
    let refused = daemon.wait_for(&["warn", "token refused", "outside of every step's session", "uid=64321"]);
    assert!(!refused.contains(&leaked.token), "{refused}");
    assert_unspent(&sandbox, &daemon, &leaked);

    let ordinary = Sandbox::of_ordinary_user();
    let (daemon, leaked) = self::daemon(&ordinary, "true");
    let mut root = Command::new(&thief);
    root.args(["redeem", &leaked.socket, &leaked.token]);
    assert_eq!(finish(root).expect(0).stdout(), "redeem 0\n");
    daemon.wait_for(&["warn", "token refused", "outside of every step's session", "uid=0"]);
    assert_unspent(&ordinary, &daemon, &leaked);
}

/// Who connected has died, and its number was given to a process of the task's own session.
#[test]
fn a_token_is_refused_to_a_peer_whose_pid_is_used_again() {
    if !needs_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let Some(thief) = thief(&sandbox) else { return };
    let script = r#"await ~/pid; thief become $(cat pid) became"#;
    let (daemon, leaked) = daemon(&sandbox, script);
    // While the daemon cannot look, the peer comes, asks and goes.
    daemon.signal("STOP");
    let mut asking = Command::new(&thief);
    asking.args(["leave", &leaked.socket, &leaked.token]).arg(sandbox.path("answer")).current_dir(sandbox.home());
    let mut asking = asking.spawn().expect("a thief");
    let pid = asking.id();
    assert!(asking.wait().expect("a child").success());
    sandbox.write("pid.new", pid.to_string());
    fs::rename(sandbox.path("pid.new"), sandbox.path("pid")).expect("to be written");
    sandbox.await_file("became");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process of that number");
    let session = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(3));
    assert_eq!(session, Some(&*leaked.pid), "the number is one of the task's session");
    daemon.signal("CONT");
    sandbox.await_file("answer");
    assert_eq!(
        crate::harness::eventually("the answer", || Some(sandbox.read("answer")).filter(|text| text.ends_with('\n'))),
        "got 0\n"
    );
    daemon.wait_for(&["warn", "token refused", "gone"]);
    assert_unspent(&sandbox, &daemon, &leaked);
}

/// A session of the same number, but in another pid namespace, and one that the daemon cannot number.
#[test]
fn a_token_is_refused_to_sessions_of_other_pid_namespaces() {
    if !needs_root() || !needs("unshare") {
        return;
    }
    let sandbox = Sandbox::new();
    let Some(thief) = thief(&sandbox) else { return };
    let (daemon, leaked) = daemon(&sandbox, "true");
    let Leaked { token, pid, socket } = &leaked;
    let said = start(&sandbox, &thief, ["namesake", pid, socket, token]).finish().expect(0);
    assert_eq!(said.stdout(), format!("session {pid}\nnamesake 0\n"));
    daemon.wait_for(&["warn", "token refused", "outside of every step's session"]);
    assert_unspent(&sandbox, &daemon, &leaked);

    let inner = Sandbox::new();
    inner.write("vault", SECRET);
    inner.config(&config("true"));
    let mut command = inner.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", text(inner.program()), "backup.yaml"]);
    self::thief(&inner);
    let daemon = Daemon::start(command);
    let leaked = Leaked::await_in(&inner);
    let outside = start(&inner, &thief, ["redeem", &leaked.socket, &leaked.token]).finish().expect(0);
    assert_eq!(outside.stdout(), "redeem 0\n");
    daemon.wait_for(&["warn", "token refused", "no pid in this namespace"]);
    assert_unspent(&inner, &daemon, &leaked);
    // unshare(1) ignores a polite signal; the daemon ends with it.
    daemon.signal("KILL");
}

/// By a process that may speak: one of the step's own session.
#[test]
fn a_hundred_thousand_guesses_win_nothing_and_the_daemon_serves_on() {
    let sandbox = Sandbox::of_ordinary_user();
    if thief(&sandbox).is_none() {
        return;
    }
    let (daemon, leaked) = daemon(&sandbox, r#"thief guess "$BACKUPNIZZA_SOCKET" 100000 > guessed"#);
    let mut run = sandbox.backupnizza(["run", "other"]);
    run.env("BACKUPNIZZA_SOCKET", &leaked.socket);
    finish(run).expect(0);
    assert!(sandbox.read("other").ends_with(SECRET), "another task gets its secret meanwhile");
    assert_unspent(&sandbox, &daemon, &leaked);
    assert_eq!(sandbox.read("guessed"), "guessed 100000 got 0\n");
    let refusals = daemon.lines(&["token refused"]).len();
    assert!(refusals < 1000, "{refusals} refusals are logged");
}

/// A client shows its token to nobody but its own user's daemon, or root's.
#[test]
fn a_client_does_not_show_its_token_to_another_users_socket() {
    if !needs_root() {
        return;
    }
    let (sandbox, stranger) = (Sandbox::of_ordinary_user(), Sandbox::new());
    let folder = stranger.path("open");
    fs::create_dir(&folder).expect("a folder");
    for open in [&folder, &stranger.home(), stranger.home().parent().expect("a folder")].map(Path::to_owned) {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    let socket = folder.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("its mode");
    std::os::unix::fs::chown(&socket, Some(12_345), None).expect("another user's socket");
    let mut client = sandbox.backupnizza(["secretbox", &"0".repeat(64)]);
    client.env("BACKUPNIZZA_SOCKET", &socket);
    let said = finish(client).expect(1);
    assert!(said.stderr.contains("belongs to another user"), "{}", said.stderr);
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "it has connected");
}
