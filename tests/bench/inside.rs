//! The part of the benchmark that runs as a task's command, because only its session may redeem a token.
//!
//! It is given a token that may be used a million times in `TOKEN` and adds lines `SERIES VALUE` to a file. Ours and
//! the floor take turns, so that whatever else the machine does hits both alike; where one would hold up the other,
//! each has a process of its own.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many clients at once.
const CLIENTS: usize = 8;

/// How often, and for how long each time, they do what they can.
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(300);

/// Where to redeem, and where the floor is.
struct Place {
    /// As `TOKEN` has it: `"/path/backupnizza" secretbox TOKEN`.
    command: Vec<String>,
    socket: PathBuf,
    echo: PathBuf,
}

/// What is done in turns, `count` times each.
pub fn measure(what: &str, count: usize, echo: &Path, results: &Path) {
    let variable = std::env::var("TOKEN").expect("a token");
    let command: Vec<String> = variable.split(' ').map(|word| word.trim_matches('"').to_owned()).collect();
    let socket = std::env::var_os("BACKUPNIZZA_SOCKET").expect("the daemon's socket").into();
    let place = Place { command, socket, echo: echo.to_owned() };
    let mut text = String::new();
    match what {
        "process" => in_turns(count, &mut text, || place.whole_process(), || run_to_end(&["/bin/true".to_owned()])),
        // In turns, the kernel would find the daemon busy with its line in the log when it looks for a processor for
        // the echo, and leave it on the client's, which is faster than to wake another.
        "connection to ours" => series(count, &mut text, "ours", || place.redeem(&place.socket)),
        "connection to the floor" => series(count, &mut text, "floor", || place.redeem(&place.echo)),
        "throughput" => in_turns(
            ROUNDS,
            &mut text,
            || place.redemptions_a_second(&place.socket),
            || place.redemptions_a_second(&place.echo),
        ),
        _ => panic!("there is nothing to measure that is called {what}"),
    }
    let mut results = OpenOptions::new().append(true).create(true).open(results).expect("a file for the results");
    results.write_all(text.as_bytes()).expect("room for the results");
}

fn in_turns(count: usize, text: &mut String, mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) {
    // The first ones find nothing in the caches.
    for _ in 0..(count / 10).max(1) {
        ours();
        floor();
    }
    for _ in 0..count {
        let _ = writeln!(text, "ours {}\nfloor {}", ours(), floor());
    }
}

fn series(count: usize, text: &mut String, name: &str, mut measured: impl FnMut() -> f64) {
    for _ in 0..(count / 10).max(1) {
        measured();
    }
    for _ in 0..count {
        let _ = writeln!(text, "{name} {}", measured());
    }
}

/// How many microseconds a command takes until it has ended and all that it prints is read, as a tool runs it.
fn run_to_end(command: &[String]) -> f64 {
    let begun = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut printed = Vec::new();
    child.stdout.take().expect("its output").read_to_end(&mut printed).expect("its output");
    let status = child.wait().expect("its end");
    let took = begun.elapsed();
    assert!(status.success(), "{command:?} failed");
    took.as_secs_f64() * 1e6
}

impl Place {
    fn whole_process(&self) -> f64 {
        run_to_end(&self.command)
    }

    /// How many microseconds from connecting to the last byte of the answer.
    fn redeem(&self, socket: &Path) -> f64 {
        let begun = Instant::now();
        let mut stream = UnixStream::connect(socket).expect("a server");
        let token = self.command.last().expect("a token");
        stream.write_all(format!("backupnizza 1 {token}\n").as_bytes()).expect("a request");
        let mut answer = [0; 256];
        let mut len = 0;
        loop {
            let count = stream.read(&mut answer[len..]).expect("an answer");
            len += count;
            if answer[..len].ends_with(b"staple") {
                break;
            }
            assert!(count > 0, "the token was refused");
        }
        begun.elapsed().as_secs_f64() * 1e6
    }

    fn redemptions_a_second(&self, socket: &Path) -> f64 {
        let (count, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let start = Barrier::new(CLIENTS + 1);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    start.wait();
                    while !over.load(Ordering::Relaxed) {
                        self.redeem(socket);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            start.wait();
            let begun = Instant::now();
            thread::sleep(ROUND);
            let done = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            done
        })
    }
}
