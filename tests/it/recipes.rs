//! The ways of being told that README.md gives, each as it stands there, with something at the other end that
//! listens: a web server, a mailer, a desktop. What a command prints is as nasty as it can be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::harness::{Sandbox, eventually, finish, needs, not_tested};
use crate::readme::{self, Block};

/// Something for each of those who read it to stumble over, and a line that would end a mail.
const NASTY: &str = r#"command: [sh, -c, 'printf "quote \" backslash \\\\ tab\tcontrol \001 byte \377 <b>bold & wide 数据 \$(touch ~/pwned)\n.\nthe last line\n"; exit "$0"'"#;

/// What of it is to arrive everywhere.
const ARRIVES: [&str; 5] =
    ["quote \" backslash \\ tab", "control \\x01 byte \\xff", "wide 数据 $(touch", "\n.\n", "the last line"];

/// Tasks that end well, badly and in between.
fn tasks() -> String {
    let task = |name: &str, code: u8| {
        format!("{{name: {name}, schedule: '@daily', exit_codes: {{warning: [3]}}, {NASTY}, '{code}']}}")
    };
    format!("[{}, {}, {}]", task("good", 0), task("bad", 9), task("fair", 3))
}

/// The block of the section whose text has `part` in it.
fn recipe(part: &str) -> Block {
    let mut all = readme::blocks().into_iter().filter(|block| block.heading == "being told");
    all.find(|block| block.text.contains(part)).expect(part)
}

/// `part`'s recipe with the tasks above, and with `address` in place of the site that it names.
fn configure(sandbox: &Sandbox, part: &str, address: &str) {
    let mut config = recipe(part).with_tasks(&tasks());
    for site in ["https://hc-ping.com", "https://ntfy.sh", "https://example.org"] {
        config = config.replace(site, address);
    }
    sandbox.config(&config);
}

fn assert_nasty(text: &str) {
    for part in ARRIVES {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

// ---- Over the network ---------------------------------------------------------------------------

#[derive(Debug, Clone)]
struct Request {
    /// `POST /path`
    what: String,
    headers: Vec<String>,
    body: String,
}

/// A web server that remembers what it was sent.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = answer(stream) {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                }
            }
        });
        Server { address, requests }
    }

    /// The requests so far, as soon as there are `count`.
    fn heard(&self, count: usize) -> Vec<Request> {
        eventually(&format!("{count} requests"), || {
            let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            (requests.len() >= count).then(|| requests.clone())
        })
    }
}

fn answer(mut stream: TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let what = line()?.strip_suffix(" HTTP/1.1")?.to_owned();
    let headers: Vec<String> = std::iter::from_fn(line).take_while(|line| !line.is_empty()).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("Content-Length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK").ok()?;
    Some(Request { what, headers, body: String::from_utf8(body).ok()? })
}

#[test]
fn healthchecks_hears_of_starts_and_of_all_ends() {
    if !needs("curl") {
        return;
    }
    let (sandbox, server) = (Sandbox::new(), Server::start());
    configure(&sandbox, "hc-ping.com", &server.address);
    for (task, status) in [("good", 0), ("bad", 1), ("fair", 3)] {
        sandbox.once([task]).expect(status);
    }
    let heard = server.heard(6);
    let what: Vec<&str> = heard.iter().map(|request| request.what.as_str()).collect();
    let wanted =
        ["GET /UUID/start", "POST /UUID", "GET /UUID/start", "POST /UUID/fail", "GET /UUID/start", "POST /UUID"];
    assert_eq!(what, wanted);
    heard.iter().filter(|request| request.what.starts_with("POST")).for_each(|request| assert_nasty(&request.body));
    assert!(!sandbox.path("pwned").exists());
}

#[test]
fn ntfy_hears_of_trouble_once_and_of_its_end() {
    if !needs("curl") {
        return;
    }
    let (sandbox, server) = (Sandbox::new(), Server::start());
    let tasks = "[{name: t, schedule: '@daily', max_age: 1s, command: [sh, -c, 'echo said; test -e ~/mended']}]";
    let config = recipe("ntfy.sh").with_tasks(tasks).replace("https://ntfy.sh", &server.address);
    let mut daemon = sandbox.daemon(&config);
    let run = |status| {
        let mut command = sandbox.backupnizza(["run", "t"]);
        command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
        finish(command).expect(status);
    };
    let title = |request: &Request| request.headers.iter().find(|header| header.starts_with("Title: ")).cloned();
    assert_eq!(title(&server.heard(1)[0]).as_deref(), Some("Title: t: stale"));
    run(1);
    let heard = server.heard(2);
    assert_eq!(heard[1].what, "POST /a-name-that-nobody-guesses");
    assert_eq!((title(&heard[1]).as_deref(), heard[1].body.as_str()), (Some("Title: t: failure"), "said\n"));
    sandbox.signal("mended");
    run(0);
    assert_eq!(title(&server.heard(3)[2]).as_deref(), Some("Title: t: success"));
    daemon.stop();
}

#[test]
fn a_webhook_gets_json_whatever_a_command_prints() {
    if !needs("curl") || !needs("jq") || !needs("python3") {
        return;
    }
    let (sandbox, server) = (Sandbox::new(), Server::start());
    configure(&sandbox, "WEBHOOK", &server.address);
    sandbox.once(["bad"]).expect(1);
    let heard = server.heard(1);
    assert_eq!(heard[0].what, "POST /hook");
    assert!(heard[0].headers.iter().any(|header| header == "Content-Type: application/json"), "{heard:?}");
    sandbox.write("body", &heard[0].body);
    let mut read = sandbox.command("python3");
    read.args([
        "-c",
        "import json, sys; sys.stdout.buffer.write(json.load(open('body', encoding='utf-8'))['text'].encode())",
    ]);
    read.env("HOME", std::env::var_os("HOME").unwrap_or_default());
    let text = finish(read).expect(0).stdout();
    assert!(text.starts_with("bad: failure\n"), "{text}");
    assert_nasty(&text);
}

// ---- On the machine -----------------------------------------------------------------------------

/// As sendmail(8): without `-t` nobody is written to, without `-i` a dot ends the mail.
const SENDMAIL: &str = r#"#!/bin/sh
dot=ends recipients=none
for option; do
  case $option in -i) dot=stays ;; -t) recipients=named ;; esac
done
[ $recipients = named ] || exit 64
if [ $dot = stays ]; then cat; else sed '/^\.$/,$d'; fi > ~/mail
"#;

#[test]
fn a_mail_arrives_whole() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/sendmail", SENDMAIL);
    configure(&sandbox, "sendmail", "");
    sandbox.once(["bad"]).expect(1);
    let mail = sandbox.read("mail");
    let (head, body) = mail.split_once("\n\n").expect("a head and a body");
    let wanted = ["To: me@example.org", "Subject: backup bad: failure", "MIME-Version: 1.0"];
    assert_eq!(head.lines().take(3).collect::<Vec<_>>(), wanted);
    assert_eq!(head.lines().nth(3), Some("Content-Type: text/plain; charset=utf-8"));
    assert_nasty(body);
}

#[test]
fn a_desktop_shows_what_happened() {
    // Where a version manager has put another python before the system's, that one does not know its packages.
    const PYTHON: &str = "/usr/bin/python3";
    if !needs("notify-send") || !needs("dbus-run-session") {
        return;
    }
    let sandbox = Sandbox::new();
    let mut import = sandbox.command(PYTHON);
    if !import.args(["-c", "import jeepney"]).output().is_ok_and(|output| output.status.success()) {
        return not_tested("python3-jeepney is not installed");
    }
    configure(&sandbox, "notify-send", "");
    let desktop = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/notifications.py");
    let mut session = sandbox.command("dbus-run-session");
    session.args([
        "--",
        "sh",
        "-c",
        r#""$1" "$2" shown 2> desktop.log & await shown; "$3" once backup.yaml bad"#,
        "sh",
    ]);
    session.args([PYTHON.as_ref(), desktop.as_os_str(), env!("CARGO_BIN_EXE_backupnizza").as_ref()]);
    finish(session).expect(1);
    let shown = sandbox.read("shown");
    assert!(shown.starts_with(r#"["bad: failure", "quote \" backslash \\ tab\tcontrol \\x01 byte \\xff "#), "{shown}");
    assert!(shown.contains(r"&lt;b>bold &amp; wide") && shown.ends_with("the last line\", 2]\n"), "{shown}");
}

#[test]
fn a_mac_shows_what_happened() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/osascript", "#!/bin/sh\nfor word; do echo \"$word\"; done > ~/shown\necho \"$BACKUPNIZZA_TASK: $BACKUPNIZZA_OUTCOME\" >> ~/shown\n");
    configure(&sandbox, "osascript", "");
    sandbox.once(["bad"]).expect(1);
    let shown = sandbox.read("shown");
    let wanted = [
        "-e",
        r#"display notification (system attribute "BACKUPNIZZA_OUTCOME") with title (system attribute "BACKUPNIZZA_TASK")"#,
        "bad: failure",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), wanted);
}
