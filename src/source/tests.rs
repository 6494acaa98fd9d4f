//! Sources as users have them: `pass`, a keyring and a terminal as they are, `op` and `security`
//! as small scripts that behave as those are documented to.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Answer, Backoff, Failure, FailureKind, Surroundings, Variables, ask};
use crate::plan::{ProgramId, SecretSpec, Source};
use crate::secret::{Protection, protect};
use crate::sys::{self, Arena};

/// Names the source that the test `asked` asks, in a process whose surroundings are made for it.
const TOLD: &str = "BACKUPNIZZA_TEST_SOURCE";

/// A value to look for in that process's memory, written backwards.
const BACKWARDS: &str = "BACKUPNIZZA_TEST_BACKWARDS";

fn arena() -> &'static Arena {
    static ARENA: OnceLock<&'static Arena> = OnceLock::new();
    ARENA.get_or_init(|| protect(Protection::Locked).expect("locked memory").arena)
}

/// Asks a source with nothing around it, for at most `timeout`.
fn ask_within(timeout: Duration, source: Source, program: &Path) -> Result<Answer, Failure> {
    let spec = SecretSpec { name: "vault".to_owned(), source, timeout: Some(timeout) };
    let around = Surroundings { variables: &Variables::default(), credentials: None, stop: &AtomicBool::new(false) };
    ask(&spec, Some(program), &around, arena())
}

fn asked_of(source: Source, program: &Path) -> Result<Answer, Failure> {
    ask_within(Duration::from_secs(60), source, program)
}

fn command(arguments: &[&str]) -> Source {
    Source::Command { program: ProgramId::any(), arguments: arguments.iter().map(|&word| word.to_owned()).collect() }
}

fn shell(script: &str) -> Result<Answer, Failure> {
    asked_of(command(&["-c", script]), Path::new("/bin/sh"))
}

fn value(answer: Result<Answer, Failure>) -> String {
    let answer = answer.expect("an answer");
    String::from_utf8(answer.secret.expose().to_vec()).expect("a text")
}

fn warnings(answer: Result<Answer, Failure>) -> Vec<String> {
    answer.expect("an answer").warnings.iter().map(ToString::to_string).collect()
}

fn failure(answer: Result<Answer, Failure>) -> (FailureKind, String) {
    let failure = answer.expect_err("no answer");
    let hint = failure.error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    (failure.kind, format!("{}{hint}", failure.error))
}

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("backupnizza-source-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
        Folder(path)
    }

    /// An executable script. Another process writes it, so that no process that a test forks
    /// meanwhile holds it open for writing, which would keep it from being executed.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        writer.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
        assert!(writer.wait().expect("its end").success());
        path
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path
    }

    /// A pipe with a name, out of which a script's `read` waits for ever.
    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether all of `tools` are here. Where they must be, a missing one fails the test.
fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = tools.iter().find(|tool| !std::env::split_paths(&path).any(|folder| folder.join(tool).exists()));
    missing.is_none_or(|tool| skip(&format!("{tool} is not installed")))
}

fn skip(why: &str) -> bool {
    let must = std::env::var_os("CI").is_some_and(|value| value == "true")
        || std::env::var_os("BACKUPNIZZA_TEST_ALL").is_some_and(|value| value == "1");
    assert!(!must, "NOT TESTED: {why}");
    let _ = writeln!(io::stderr(), "\n*** NOT TESTED: {why} ***\n");
    false
}

// ---- A process of its own, for what depends on environment or terminal -------------------------

/// The command line that has the test `asked` ask a source, for the environment variable `TOLD`.
fn asking_process() -> Vec<OsString> {
    let this = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "source::tests::asked", "--ignored", "--nocapture", "--quiet"];
    [this.into_os_string()].into_iter().chain(arguments.map(OsString::from)).collect()
}

/// Asks the source that the environment names, and says on standard output what came of it.
#[test]
#[ignore = "the process that other tests start"]
fn asked() {
    let told = std::env::var(TOLD).expect("a source");
    let mut words = told.split('\n').map(str::to_owned);
    let (kind, first) = (words.next().expect("a kind"), words.next().expect("a word"));
    let seconds = std::env::var("TIMEOUT").map_or(60, |text| text.parse().expect("seconds"));
    let stop = Arc::new(AtomicBool::new(false));
    // A daemon's handler, in place of the default action.
    if std::env::var_os("HANDLED").is_some() {
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop)).expect("a handler");
    }
    let mut taken = Vec::new();
    let source = match kind.as_str() {
        "command" => command(&words.by_ref().collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()),
        "secret-tool" => {
            let attributes = vec![(words.next().expect("a name"), words.next().expect("a value"))];
            Source::SecretService { program: ProgramId::any(), attributes }
        }
        "prompt" => Source::Prompt(first.clone()),
        "env" | "env, wiped" => {
            taken.push(first.clone());
            Source::Env(first.clone())
        }
        // Takes a variable away and then shows what is left of the environment.
        "environment" => {
            taken.push(first.clone());
            command(&["-c", "env; cat /proc/$PPID/environ | tr '\\0' '\\n'"])
        }
        "file" => Source::File(first.clone().into()),
        kind => unreachable!("a source: {kind}"),
    };
    let program = if kind == "environment" { "/bin/sh" } else { &first };
    let variables = Variables::take(taken.iter().map(String::as_str), arena()).expect("room");
    if kind == "env, wiped" {
        variables.wipe();
    }
    let around = Surroundings { variables: &variables, credentials: None, stop: &stop };
    let spec = SecretSpec { name: "vault".to_owned(), source, timeout: Some(Duration::from_secs(seconds)) };
    let mut out = io::stdout();
    let answer = ask(&spec, Some(Path::new(program)), &around, arena());
    if let Ok(backwards) = std::env::var(BACKWARDS) {
        writeln!(out, "\ncopies: {}", copies_in_memory(backwards.as_bytes())).expect("standard output");
    }
    let said = match answer {
        Ok(answer) => {
            writeln!(out, "\nanswer: [{}] {:?}", answer.secret.expose().escape_ascii(), answer.warnings)
        }
        failed => {
            let (kind, text) = failure(failed);
            writeln!(out, "\nfailure: {kind:?}: {text}")
        }
    };
    said.expect("standard output");
}

/// How often a text stands in this process's writable memory; the text is given backwards, so
/// that looking for it does not put it there.
fn copies_in_memory(backwards: &[u8]) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("own maps");
    let memory = fs::File::open("/proc/self/mem").expect("own memory");
    let mut page = [0; 4096];
    let mut copies = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        for address in (from..to).step_by(page.len()) {
            if memory.read_exact_at(&mut page, address).is_ok() {
                copies += page.windows(backwards.len()).filter(|text| text.iter().rev().eq(backwards)).count();
                page.fill(0);
            }
        }
    }
    copies
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `asked` with `environment` and returns what it said.
fn ask_in_process(source: &[&str], environment: &[(&str, &str)]) -> String {
    let process = asking_process();
    let mut command = Command::new(&process[0]);
    command.args(&process[1..]).env(TOLD, source.join("\n")).envs(environment.iter().copied());
    text(&command.output().expect("this program"))
}

/// Runs `asked` on a terminal and follows `steps`, which pty.py describes; returns what the
/// terminal showed.
fn ask_on_terminal(source: &[&str], timeout: u32, steps: &[&str]) -> Option<String> {
    follow(source, timeout, &[], steps)
}

/// The same in a process that handles the signal to end itself.
fn ask_on_terminal_of_daemon(source: &[&str], steps: &[&str]) -> Option<String> {
    follow(source, 60, &[("HANDLED", "yes")], steps)
}

fn follow(source: &[&str], timeout: u32, environment: &[(&str, &str)], steps: &[&str]) -> Option<String> {
    if !have(&["python3"]) {
        return None;
    }
    let mut driver = Command::new("python3");
    driver.args(["-c", include_str!("pty.py")]).args(steps).arg("--").args(asking_process());
    driver.env(TOLD, source.join("\n")).env("TIMEOUT", timeout.to_string());
    driver.envs(environment.iter().copied());
    let output = driver.output().expect("python3");
    assert!(output.status.success(), "{}", text(&output));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

// ---- Password managers -------------------------------------------------------------------------

#[test]
fn pass_is_asked_with_its_own_environment() {
    if !have(&["pass", "gpg"]) {
        return;
    }
    let folder = Folder::new("pass");
    let home = folder.0.to_str().expect("a path").to_owned();
    let store = format!("{home}/store");
    let environment = [("GNUPGHOME", home.as_str()), ("PASSWORD_STORE_DIR", store.as_str())];
    let run = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).envs(environment).output().expect("sh");
        assert!(output.status.success(), "{}", text(&output));
    };
    run("gpg --batch --quiet --passphrase '' --quick-generate-key tester@example.org default default never");
    run("pass init tester@example.org && printf 'correct horse\\n' | pass insert --multiline vault/restic");
    let pass = run_path("pass");
    let said = ask_in_process(&["command", &pass, "show", "vault/restic"], &environment);
    assert!(said.contains("answer: [correct horse] []"), "{said}");
    let said = ask_in_process(&["command", &pass, "show", "vault/none"], &environment);
    let expected = "failure: Unavailable: secret vault: pass exited with status 1: \
                    Error: vault/none is not in the password store.";
    assert!(said.contains(expected), "{said}");
    run("gpgconf --kill all");
}

fn run_path(tool: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.exists());
    found.expect("the tool").to_str().expect("a path").to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn a_keyring_is_asked_through_secret_tool() {
    if !have(&["secret-tool", "gnome-keyring-daemon", "dbus-run-session"]) {
        return;
    }
    let folder = Folder::new("keyring");
    let home = folder.0.to_str().expect("a path").to_owned();
    let tool = run_path("secret-tool");
    let script = "printf pw | gnome-keyring-daemon --unlock --components=secrets --control-directory=\"$HOME/control\" \
                  --daemonize >/dev/null && \
                  printf 'pass wörd' | secret-tool store --label=test service restic && \
                  printf 'dashed' | secret-tool store --label=test -- -service restic && \
                  \"$@\"; ";
    let ask = |attributes: [&str; 2]| {
        let mut session = Command::new("dbus-run-session");
        session.args(["--", "sh", "-c", script, "sh"]).args(asking_process());
        session.env("HOME", &home).env("XDG_DATA_HOME", &home).env("XDG_RUNTIME_DIR", &home);
        session.env(TOLD, ["secret-tool", &tool, attributes[0], attributes[1]].join("\n"));
        text(&session.output().expect("dbus-run-session"))
    };
    let said = ask(["service", "restic"]);
    assert!(said.contains(r"answer: [pass w\xc3\xb6rd] []"), "{said}");
    let said = ask(["-service", "restic"]);
    assert!(said.contains("answer: [dashed] []"), "{said}");
    let said = ask(["service", "other"]);
    assert!(said.contains("failure: Unavailable: secret vault: secret-tool exited with status 1 (unlock"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_session_bus_secret_tool_says_so() {
    if !have(&["secret-tool"]) {
        return;
    }
    let source = ["secret-tool", &run_path("secret-tool"), "service", "restic"];
    let nowhere = [("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")];
    let said = ask_in_process(&source, &nowhere);
    assert!(
        said.contains("failure: Unavailable: secret vault: secret-tool exited with status 1: secret-tool: "),
        "{said}"
    );
}

#[test]
fn onepassword_is_read_by_op() {
    let folder = Folder::new("op");
    let op = folder.script(
        "op",
        "#!/bin/sh\n[ \"$*\" = 'read --no-newline op://Private/restic/one time' ] && printf 'correct horse'\n",
    );
    let reference = "op://Private/restic/one time".to_owned();
    let answer = asked_of(Source::OnePassword { program: ProgramId::any(), reference }, &op);
    assert_eq!(value(answer), "correct horse");
}

#[test]
fn an_op_that_is_not_signed_in_is_quoted_with_a_hint() {
    let folder = Folder::new("op-signed-out");
    let line =
        "[ERROR] 2026/01/02 03:04:05 You are not currently signed in. Please run `op signin --help` for instructions";
    let op = folder.script("op", &format!("#!/bin/sh\necho '{line}' >&2\nexit 1\n"));
    let reference = "op://Private/restic/password".to_owned();
    let answer = asked_of(Source::OnePassword { program: ProgramId::any(), reference }, &op);
    let expected =
        format!("secret vault: op exited with status 1: {line} (run `op signin` or unlock 1Password, then try again)");
    assert_eq!(failure(answer), (FailureKind::Unavailable, expected));
}

fn keychain(tool: &Path, account: Option<&str>) -> Result<Answer, Failure> {
    let account = account.map(str::to_owned);
    asked_of(Source::Keychain { program: ProgramId::any(), service: "restic".to_owned(), account }, tool)
}

#[test]
fn a_keychain_is_asked_through_security() {
    let folder = Folder::new("security");
    let security = folder.script(
        "security",
        "#!/bin/sh\ncase \"$*\" in\n\
         'find-generic-password -s restic -a me -w') echo 'correct horse' ;;\n\
         'find-generic-password -s restic -w') echo 'battery staple' ;;\n\
         *) echo 'security: SecKeychainSearchCopyNext: The specified item could not be found in the keychain.' >&2; exit 44 ;;\n\
         esac\n",
    );
    assert_eq!(value(keychain(&security, Some("me"))), "correct horse");
    assert_eq!(value(keychain(&security, None)), "battery staple");
    let expected = "secret vault: security exited with status 44: security: SecKeychainSearchCopyNext: \
                    The specified item could not be found in the keychain. \
                    (`security add-generic-password -s SERVICE -a ACCOUNT -w` adds the item)";
    assert_eq!(failure(keychain(&security, Some("you"))), (FailureKind::Unavailable, expected.to_owned()));
}

#[test]
fn a_keychain_password_that_security_turned_into_hex_is_a_warning() {
    let folder = Folder::new("security-hex");
    let printing = |text: &str| {
        let security = folder.script("security", &format!("#!/bin/sh\necho {text}\n"));
        keychain(&security, None)
    };
    let warning = "secret vault: looks like the hexadecimal form in which security prints what is not plain ASCII";
    // "pässword", once as bytes and once as C's negative chars.
    assert_eq!(warnings(printing("70c3a47373776f7264")), [warning]);
    assert_eq!(warnings(printing("70ffffffc3ffffffa47373776f7264")), [warning]);
    // A password that is made of such digits is given as it is, without a word.
    let random = "8f3b62d5c07e91aa4f9d10e6b7c85d23";
    assert_eq!(warnings(printing(random)), [""; 0]);
    assert_eq!(value(printing(random)), random);
    assert_eq!(warnings(printing("deadbeef")), [""; 0]);
}

// ---- Commands ----------------------------------------------------------------------------------

#[test]
fn what_a_command_prints_is_the_value_without_one_line_ending() {
    assert_eq!(value(shell("printf 'correct horse\\n'")), "correct horse");
    assert_eq!(value(shell("printf 'correct\\nhorse\\r\\n'")), "correct\nhorse");
    assert_eq!(value(shell("head -c 65536 /dev/zero | tr '\\0' x")).len(), 65536);
}

#[test]
fn an_empty_or_endless_answer_is_wrong_in_itself() {
    let empty = (FailureKind::Wrong, "secret vault: the answer of sh is empty".to_owned());
    assert_eq!(failure(shell("true")), empty);
    assert_eq!(failure(shell("echo")), empty);
    let endless = (FailureKind::Wrong, "secret vault: the answer of sh is longer than 64 KiB".to_owned());
    assert_eq!(failure(shell("exec yes")), endless);
}

#[test]
fn a_program_that_is_not_there_is_wrong_in_itself() {
    let answer = asked_of(command(&[]), Path::new("/nonexistent/op"));
    assert_eq!(failure(answer), (FailureKind::Wrong, "secret vault: there is no such program: op".to_owned()));
    let spec = SecretSpec { name: "vault".to_owned(), source: command(&[]), timeout: None };
    let around = Surroundings { variables: &Variables::default(), credentials: None, stop: &AtomicBool::new(false) };
    let answer = ask(&spec, None, &around, arena());
    assert_eq!(failure(answer), (FailureKind::Wrong, "secret vault: there is no such program".to_owned()));
    let folder = Folder::new("interpreter");
    let (kind, told) = failure(asked_of(command(&[]), &folder.script("op", "#!/nonexistent/python\n")));
    assert_eq!(kind, FailureKind::Wrong);
    assert_eq!(told, "secret vault: op cannot be started: there is no such interpreter as it names");
}

#[test]
fn the_end_of_a_command_that_fails_is_told() {
    let (kind, told) = failure(shell("echo not this value; exit 7"));
    assert_eq!((kind, told.as_str()), (FailureKind::Unavailable, "secret vault: sh exited with status 7"));
    let (kind, told) = failure(shell("echo not this value; kill -9 $$"));
    assert_eq!((kind, told.as_str()), (FailureKind::Unavailable, "secret vault: sh was ended by signal 9 (SIGKILL)"));
}

#[test]
fn the_last_words_of_a_command_are_escaped_and_cut() {
    let (_, told) = failure(shell("printf 'first\\nlast \\033[31m\\007words\\n\\n \\n' >&2; exit 1"));
    assert_eq!(told, r"secret vault: sh exited with status 1: last \u{1b}[31m\u{7}words");
    let (_, told) = failure(shell("head -c 1000 /dev/zero | tr '\\0' x >&2; exit 1"));
    assert_eq!(told, format!("secret vault: sh exited with status 1: {}", "x".repeat(200)));
}

/// The shell under another name, so that a test finds its own process among all.
fn named_shell(folder: &Folder, name: &str) -> PathBuf {
    let path = folder.0.join(name);
    symlink("/bin/sh", &path).expect("a link");
    path
}

fn children_named(name: &str) -> usize {
    let own = i32::try_from(std::process::id()).expect("a pid");
    let all = sys::processes().expect("all processes");
    all.iter().filter(|process| process.parent == own && process.name == name).count()
}

#[test]
fn a_command_that_never_answers_is_given_up_and_gone() {
    let folder = Folder::new("silent");
    let pipe = folder.pipe("pipe");
    let script = format!("exec 3<>{}; read line <&3", pipe.display());
    let answer =
        ask_within(Duration::from_millis(200), command(&["-c", &script]), &named_shell(&folder, "silent-tool"));
    let expected = "secret vault: silent-tool gave no answer within 0.2 s";
    assert_eq!(failure(answer), (FailureKind::Unavailable, expected.to_owned()));
    assert_eq!(children_named("silent-tool"), 0);
}

#[test]
fn a_command_that_does_not_heed_the_signal_to_end_is_killed() {
    let folder = Folder::new("stubborn");
    let pipe = folder.pipe("pipe");
    let script = format!("trap '' TERM; exec 3<>{}; while :; do read line <&3; done", pipe.display());
    let answer =
        ask_within(Duration::from_millis(500), command(&["-c", &script]), &named_shell(&folder, "stubborn-tool"));
    assert_eq!(failure(answer).0, FailureKind::Unavailable);
    assert_eq!(children_named("stubborn-tool"), 0);
}

#[test]
fn a_command_that_has_answered_must_also_end() {
    let folder = Folder::new("endless");
    let pipe = folder.pipe("pipe");
    let script = format!("exec 3<>{}; echo correct horse; exec >&- 2>&-; read line <&3", pipe.display());
    let answer =
        ask_within(Duration::from_millis(300), command(&["-c", &script]), &named_shell(&folder, "endless-tool"));
    assert_eq!(failure(answer).0, FailureKind::Unavailable);
    assert_eq!(children_named("endless-tool"), 0);
}

#[test]
fn an_agent_that_keeps_the_pipe_open_is_not_waited_for() {
    let folder = Folder::new("agent");
    let pipe = folder.pipe("pipe");
    let script = format!("exec 3<>{}; (read line <&3) & echo correct horse", pipe.display());
    let waits_for_ever = SecretSpec { name: "vault".to_owned(), source: command(&["-c", &script]), timeout: None };
    let around = Surroundings { variables: &Variables::default(), credentials: None, stop: &AtomicBool::new(false) };
    let answer = ask(&waits_for_ever, Some(Path::new("/bin/sh")), &around, arena());
    assert_eq!(value(answer), "correct horse");
    // Lets the agent go.
    fs::write(&pipe, "\n").expect("written");
}

#[test]
fn a_question_that_is_called_off_ends_at_once() {
    let folder = Folder::new("called-off");
    let pipe = folder.pipe("pipe");
    let script = format!("exec 3<>{}; read line <&3", pipe.display());
    let spec = SecretSpec { name: "vault".to_owned(), source: command(&["-c", &script]), timeout: None };
    let stop = AtomicBool::new(false);
    let around = Surroundings { variables: &Variables::default(), credentials: None, stop: &stop };
    let shell = named_shell(&folder, "called-off");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&spec, Some(&shell), &around, arena()));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failure(asking.join().expect("no panic")).0, FailureKind::Stopped);
    });
    assert_eq!(children_named("called-off"), 0);
}

#[test]
fn odd_values_are_warnings() {
    let blanks = "secret vault: begins or ends with blanks or line endings, which restic and others take away";
    let short = "secret vault: shorter than 6 bytes, so it is not redacted from output";
    assert_eq!(warnings(shell("printf ' correct horse'")), [blanks]);
    assert_eq!(warnings(shell("printf 'correct horse\\n\\n'")), [blanks]);
    assert_eq!(warnings(shell("printf 'correct horse\\302\\240'")), [blanks]);
    assert_eq!(warnings(shell("printf 'x\\377 '")), [blanks, short]);
    assert_eq!(warnings(shell("printf 'horse\\n'")), [short]);
    assert_eq!(warnings(shell("printf 'horses\\n'")), [""; 0]);
}

// ---- Files and credentials ---------------------------------------------------------------------

fn file(path: &Path) -> Result<Answer, Failure> {
    asked_of(Source::File(path.to_owned()), Path::new(""))
}

#[test]
fn a_file_is_read_without_its_line_ending() {
    let folder = Folder::new("file");
    assert_eq!(value(file(&folder.file("key", "correct horse\n", 0o600))), "correct horse");
    assert_eq!(warnings(file(&folder.file("key", "correct horse\n", 0o400))), [""; 0]);
}

#[test]
fn a_file_that_others_may_read_or_write_is_wrong_in_itself() {
    let folder = Folder::new("file-others");
    let readable = "secret vault: its file is readable by others (chmod o-r the file)";
    let writable = "secret vault: its file is writable by others (chmod o-w the file)";
    let path = folder.file("key", "correct horse", 0o604);
    assert_eq!(failure(file(&path)), (FailureKind::Wrong, readable.to_owned()));
    let path = folder.file("key", "correct horse", 0o602);
    assert_eq!(failure(file(&path)), (FailureKind::Wrong, writable.to_owned()));
}

#[test]
fn a_file_of_a_group_is_a_warning_and_one_of_another_user_wrong() {
    if sys::effective_uid() != 0 {
        skip("files of other users and groups: not root");
        return;
    }
    let folder = Folder::new("file-owners");
    let path = folder.file("key", "correct horse", 0o640);
    chown(&path, Some(0), Some(1)).expect("chown");
    let warning = "secret vault: its file is readable or writable by its group";
    assert_eq!(warnings(file(&path)), [warning]);
    chown(&path, Some(1), Some(1)).expect("chown");
    let (kind, told) = failure(file(&path));
    assert_eq!(kind, FailureKind::Wrong);
    assert!(told.starts_with("secret vault: its file belongs to another user"), "{told}");
}

#[test]
fn a_missing_file_may_still_come_and_an_empty_one_is_wrong() {
    let folder = Folder::new("file-missing");
    let missing = (FailureKind::Unavailable, "secret vault: its file is missing".to_owned());
    assert_eq!(failure(file(&folder.0.join("none"))), missing);
    let empty = (FailureKind::Wrong, "secret vault: its file is empty".to_owned());
    assert_eq!(failure(file(&folder.file("key", "\n", 0o600))), empty);
    let long = (FailureKind::Wrong, "secret vault: its file is longer than 64 KiB".to_owned());
    assert_eq!(failure(file(&folder.file("key", &"x".repeat(65537), 0o600))), long);
}

#[test]
fn what_is_no_regular_file_is_wrong_and_never_waited_for() {
    let folder = Folder::new("file-kinds");
    let irregular = (FailureKind::Wrong, "secret vault: its file is not a regular file".to_owned());
    assert_eq!(failure(file(&folder.pipe("pipe"))), irregular);
    assert_eq!(failure(file(&folder.0)), irregular);
    assert_eq!(failure(file(Path::new("/dev/null"))), irregular);
}

#[test]
fn a_credential_is_read_from_the_folder_of_the_service_manager() {
    let folder = Folder::new("credential");
    folder.file("rest-password", "correct horse", 0o440);
    let credential = |name: &str, directory: Option<&Path>| {
        let source = Source::Credential(name.to_owned());
        let spec = SecretSpec { name: "rest".to_owned(), source, timeout: None };
        let around = Surroundings {
            variables: &Variables::default(),
            credentials: directory.map(Path::to_owned),
            stop: &AtomicBool::new(false),
        };
        ask(&spec, None, &around, arena())
    };
    assert_eq!(value(credential("rest-password", Some(&folder.0))), "correct horse");
    for (name, directory) in [("other", Some(folder.0.as_path())), ("rest-password", None)] {
        let (kind, told) = failure(credential(name, directory));
        assert_eq!(kind, FailureKind::Wrong);
        assert!(told.contains("LoadCredential="), "{told}");
    }
}

// ---- Variables ---------------------------------------------------------------------------------

#[test]
fn a_variable_is_given_as_it_is() {
    let said = ask_in_process(&["env", "KEY_OF_TEST"], &[("KEY_OF_TEST", "correct horse")]);
    assert!(said.contains("answer: [correct horse] []"), "{said}");
    let said = ask_in_process(&["env", "KEY_OF_TEST"], &[]);
    assert!(said.contains("failure: Wrong: secret vault: its environment variable is not set"), "{said}");
    let said = ask_in_process(&["env", "KEY_OF_TEST"], &[("KEY_OF_TEST", "")]);
    assert!(said.contains("failure: Wrong: secret vault: its environment variable is empty"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_variable_that_is_a_secret_is_gone_from_the_process_and_from_its_tools() {
    let environment = [("KEY_OF_TEST", "correct horse"), ("OTHER_OF_TEST", "passed on")];
    let said = ask_in_process(&["environment", "KEY_OF_TEST"], &environment);
    assert!(said.contains(r"\nOTHER_OF_TEST=passed on"), "{said}");
    assert!(!said.contains("correct horse"), "{said}");
    // What is left of it is its name, in the process's own block only: the tool has not even that.
    assert_eq!(said.matches("OTHER_OF_TEST=").count(), 2, "{said}");
    assert_eq!(said.matches("KEY_OF_TEST=").count(), 1, "{said}");
}

#[test]
fn a_variable_that_was_wiped_does_not_come_back() {
    let said = ask_in_process(&["env, wiped", "KEY_OF_TEST"], &[("KEY_OF_TEST", "correct horse")]);
    assert!(said.contains("failure: Wrong: secret vault: its environment variable was wiped"), "{said}");
}

// ---- Prompts -----------------------------------------------------------------------------------

const PROMPT: [&str; 2] = ["prompt", "Passphrase: "];

#[test]
fn a_passphrase_is_typed_without_echo() {
    let steps = [
        "expect",
        "Passphrase: ",
        "echo",
        "off",
        "type",
        "correct horse^M",
        "expect",
        "answer: [correct horse] []",
        "ended",
        "0",
        "echo",
        "on",
    ];
    let Some(shown) = ask_on_terminal(&PROMPT, 60, &steps) else { return };
    assert_eq!(shown.matches("correct horse").count(), 1, "{shown}");
}

#[test]
fn a_passphrase_may_end_with_an_end_of_file_but_not_be_one() {
    let steps = ["expect", "Passphrase: ", "type", "correct^D", "type", " horse^D^D", "ended", "0", "echo", "on"];
    let Some(shown) = ask_on_terminal(&PROMPT, 60, &steps) else { return };
    assert!(shown.contains("answer: [correct horse] []"), "{shown}");
    for nothing in ["^D", "^M"] {
        let steps = ["expect", "Passphrase: ", "type", nothing, "ended", "0", "echo", "on"];
        let Some(shown) = ask_on_terminal(&PROMPT, 60, &steps) else { return };
        assert!(shown.contains("failure: Wrong: secret vault: the answer is empty"), "{shown}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_line_that_a_terminal_cuts_is_no_passphrase() {
    let line = "x".repeat(5000) + "^M";
    let steps = ["expect", "Passphrase: ", "type", &line, "ended", "0", "echo", "on"];
    let Some(shown) = ask_on_terminal(&PROMPT, 60, &steps) else { return };
    assert!(shown.contains("failure: Wrong: secret vault: the answer is 4095 bytes or longer"), "{shown}");
    let line = "x".repeat(4000) + "^M";
    let steps = ["expect", "Passphrase: ", "type", &line, "expect", "answer: [xxx", "ended", "0", "echo", "on"];
    let _ = ask_on_terminal(&PROMPT, 60, &steps);
}

#[test]
fn echo_comes_back_after_a_key_or_a_signal_that_ends() {
    for (verb, word, end) in [
        ("type", "half a passphrase^C", "SIGINT"),
        ("type", "half a passphrase^\\", "SIGQUIT"),
        ("signal", "TERM", "SIGTERM"),
        ("signal", "HUP", "SIGHUP"),
        ("signal", "INT", "SIGINT"),
    ] {
        let steps = ["expect", "Passphrase: ", "echo", "off", verb, word, "ended", end, "echo", "on"];
        let Some(shown) = ask_on_terminal(&PROMPT, 60, &steps) else { return };
        assert!(!shown.contains("half"), "{shown}");
    }
}

#[test]
fn a_signal_with_a_handler_ends_the_question_alone() {
    let steps = [
        "expect",
        "Passphrase: ",
        "echo",
        "off",
        "signal",
        "TERM",
        "expect",
        "failure: Stopped: secret vault: interrupted while it was asked for",
        "ended",
        "0",
        "echo",
        "on",
    ];
    let _ = ask_on_terminal_of_daemon(&PROMPT, &steps);
}

#[test]
fn echo_is_on_while_the_question_is_paused_and_it_is_asked_again() {
    for (verb, word) in [("type", "half^Z"), ("signal", "TSTP")] {
        let steps = [
            "expect",
            "Passphrase: ",
            "echo",
            "off",
            verb,
            word,
            "paused",
            "echo",
            "on",
            "signal",
            "CONT",
            "expect",
            "Passphrase: ",
            "echo",
            "off",
            "type",
            "correct horse^M",
            "expect",
            "answer: [correct horse] []",
            "ended",
            "0",
            "echo",
            "on",
        ];
        let _ = ask_on_terminal(&PROMPT, 60, &steps);
    }
}

#[test]
fn echo_comes_back_when_nobody_answers() {
    let steps = [
        "expect",
        "Passphrase: ",
        "expect",
        "failure: Unavailable: secret vault: the terminal gave no answer within 1 s",
        "ended",
        "0",
        "echo",
        "on",
    ];
    let _ = ask_on_terminal(&PROMPT, 1, &steps);
}

#[test]
fn a_job_in_the_background_is_told_so_and_not_stopped() {
    let steps = [
        "background",
        "expect",
        "failure: Unavailable: secret vault: backupnizza runs in the background",
        "ended",
        "0",
    ];
    let _ = ask_on_terminal(&PROMPT, 60, &steps);
}

#[test]
fn without_a_terminal_a_prompt_is_wrong_in_itself() {
    if !have(&["python3"]) {
        return;
    }
    let mut process = Command::new("python3");
    process.args(["-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"]).args(asking_process());
    let said = text(&process.env(TOLD, PROMPT.join("\n")).output().expect("python3"));
    assert!(said.contains("failure: Wrong: secret vault: there is no terminal to ask on (start"), "{said}");
}

#[test]
fn echo_comes_back_after_a_tool_that_was_given_up() {
    let script = "stty -echo; trap '' TERM; echo ready >&2; while :; do read line; done";
    let steps = [
        "expect",
        "ready",
        "echo",
        "off",
        "signal",
        "TERM",
        "expect",
        "failure: Stopped: secret vault: interrupted",
        "ended",
        "0",
        "echo",
        "on",
    ];
    let _ = ask_on_terminal_of_daemon(&["command", "/bin/sh", "-c", script], &steps);
}

#[test]
fn a_tool_may_ask_on_the_terminal() {
    let script = "printf 'PIN? ' >&2; read pin; echo \"secret for $pin\"";
    let steps = ["expect", "PIN? ", "type", "1234^M", "expect", "answer: [secret for 1234] []", "ended", "0"];
    let _ = ask_on_terminal(&["command", "/bin/sh", "-c", script], 60, &steps);
}

// ---- Memory ------------------------------------------------------------------------------------

#[test]
#[cfg(target_os = "linux")]
fn an_answer_stands_in_protected_memory_and_nowhere_else() {
    let folder = Folder::new("memory");
    let key = folder.file("key", "a-needle-in-a-haystack\n", 0o600);
    let backwards = [(BACKWARDS, "kcatsyah-a-ni-eldeen-a")];
    let said = ask_in_process(&["command", "/bin/cat", key.to_str().expect("a path")], &backwards);
    assert!(said.contains("copies: 1\n") && said.contains("answer: [a-needle-in-a-haystack] []"), "{said}");
    let said = ask_in_process(&["file", key.to_str().expect("a path")], &backwards);
    assert!(said.contains("copies: 1\n") && said.contains("answer: [a-needle-in-a-haystack] []"), "{said}");
    let steps = ["expect", "Passphrase: ", "type", "a-needle-in-a-haystack^M", "expect", "copies: 1\r\n", "ended", "0"];
    let _ = follow(&PROMPT, 60, &backwards, &steps);
}

// ---- Asking again ------------------------------------------------------------------------------

#[test]
fn what_is_unavailable_is_asked_for_again_after_10_s_doubling_to_10_min() {
    let mut backoff = Backoff::new();
    let delays: Vec<u64> = (0..9).map(|_| backoff.after_failure().as_secs()).collect();
    assert_eq!(delays, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
}
