//! How fast a command may print, with 20 secrets to be kept out of what it prints.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::figure::{Figure, Limit, Samples, Unit};
use crate::sandbox::{Sandbox, eventually, stamp_program, stamps};

const SECRETS: usize = 20;

/// What is printed: lines as a backup tool prints them.
const BYTES: usize = 200_000_000;

const TIMES: usize = 5;

const PATIENCE: Duration = Duration::from_secs(120);

const MODES: [(&str, f64); 3] = [("log", 0.5), ("discard", 0.8), ("on_failure", 0.8)];

pub fn figures() -> Vec<Figure> {
    let sandbox = Sandbox::new();
    let stamp = stamp_program(&sandbox.path("")).display().to_string();
    write_text(&sandbox);
    configure(&sandbox, &stamp);
    let daemon = sandbox.daemon();
    let mut speeds: [Vec<f64>; MODES.len()] = Default::default();
    let mut floor = Vec::new();
    for _ in 0..TIMES {
        floor.push(speed(time_of_cat(&sandbox)));
        for ((mode, _), speeds) in MODES.iter().zip(&mut speeds) {
            let marks = sandbox.path("marks");
            daemon.begin(&format!("{mode}-task"));
            eventually("the end of the output", PATIENCE, || stamps(&marks).len() == 2);
            let [begun, ended] = stamps(&marks)[..] else { panic!("a run that left no two marks") };
            speeds.push(speed(ended - begun));
            std::fs::remove_file(marks).expect("the marks");
            // Without what was logged so far.
            truncate(&sandbox, "log");
        }
    }
    let floor = Samples::new(floor);
    let figures = MODES.iter().zip(speeds).map(|((mode, part), speeds)| {
        let name = match *mode {
            "log" => "output through the redactor, `output: log` to a file".to_owned(),
            mode => format!("redaction, `output: {mode}`"),
        };
        Figure::new(name, Unit::MegabytesPerSecond, Samples::new(speeds))
            .beside("cat through a pipe to a file", floor.clone())
            .limit(Limit::PartOfFloor(*part))
    });
    figures.collect()
}

fn write_text(sandbox: &Sandbox) {
    let mut text = String::with_capacity(BYTES + 200);
    let mut number = 0u64;
    while text.len() < BYTES {
        number += 1;
        let _ = writeln!(
            text,
            "new       /home/me/Documents/letters/{:016x}/page-{number}.odt, saved in 0.0{}s ({} KiB added)",
            number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            number % 97,
            number % 4093,
        );
    }
    sandbox.write("text", &text);
}

fn configure(sandbox: &Sandbox, stamp: &str) {
    let mut config =
        format!("state_dir: {}\nsecretbox: {{socket: {}}}\nsecrets:\n", sandbox.text("state"), sandbox.text("socket"));
    for number in 0..SECRETS {
        let key = format!("key-{number}");
        sandbox.write(
            &key,
            &format!("s3cret-{number:02}-{:016x}\n", (number as u64 + 7).wrapping_mul(0x2545_F491_4F6C_DD1D)),
        );
        let _ = writeln!(config, "  - {{name: {key}, file: {}}}", sandbox.text(&key));
    }
    let (marks, text) = (sandbox.text("marks"), sandbox.text("text"));
    config.push_str("tasks:\n");
    for (mode, _) in MODES {
        let _ = writeln!(
            config,
            "  - name: {mode}-task\n    output: {mode}\n    command: [sh, -c, \"{stamp} {marks}; exec cat {text}\"]\n    \
             hooks: {{end: [{stamp}, {marks}]}}"
        );
    }
    sandbox.write("backup.yaml", &config);
}

fn truncate(sandbox: &Sandbox, name: &str) {
    let file = File::options().write(true).open(sandbox.path(name));
    file.and_then(|file| file.set_len(0)).expect("a file");
}

fn time_of_cat(sandbox: &Sandbox) -> Duration {
    let out = File::create(sandbox.path("copy")).expect("a file");
    let begun = Instant::now();
    let mut first = Command::new("cat").arg(sandbox.path("text")).stdout(Stdio::piped()).spawn().expect("cat");
    let pipe = first.stdout.take().expect("its output");
    let second = Command::new("cat").stdin(pipe).stdout(out).status();
    let took = begun.elapsed();
    assert!(first.wait().is_ok_and(|status| status.success()) && second.is_ok_and(|status| status.success()));
    std::io::stdout().flush().expect("standard output");
    took
}

fn speed(took: Duration) -> f64 {
    BYTES as f64 / 1e6 / took.as_secs_f64()
}
