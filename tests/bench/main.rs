//! `cargo bench [-- FILTER --json PATH --program PATH]`: how fast, small and quiet backupnizza is, each figure beside
//! its floor, both measured in the same run, and beside its limit.
//!
//! The program is started as a user starts it; nothing of it is linked here. `redemption` is measured `inside` a
//! task against an `echo`, `waiting` against starts by `hand`, memory and rest against `cron`.

mod cron;
mod echo;
mod figure;
mod hand;
mod inside;
mod output;
mod program;
mod redemption;
mod sandbox;
mod start;
mod waiting;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figure::Figure;

/// A subject's name, about how long it takes, and what measures it.
type Subject = (&'static str, &'static str, fn() -> Vec<Figure>);

const SUBJECTS: [Subject; 8] = [
    ("program", "at once", program::figures),
    ("redemption", "15 s", redemption::figures),
    ("start", "20 s", start::figures),
    ("output", "30 s", output::figures),
    ("memory", "1 minute", start::memory),
    ("waiting", "5 minutes", waiting::figures),
    ("growth-tasks", "30 s", start::growth),
    ("growth-tokens", "15 s", redemption::growth),
];

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text = |index: usize| arguments[index].to_string_lossy();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("inside") => inside::measure(
            &text(1),
            text(2).parse().expect("a count"),
            Path::new(&arguments[3]),
            Path::new(&arguments[4]),
        ),
        Some("echo") => echo::serve(Path::new(&arguments[1])),
        Some("sleeper") => {
            let at = Duration::from_secs(text(1).parse().expect("a time"));
            hand::start_at(at, text(2).parse().expect("a count"), &arguments[3], &arguments[4]);
        }
        _ => bench(&arguments),
    }
}

fn bench(arguments: &[OsString]) {
    let mut filter = None;
    let mut path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json"));
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--json") => path = rest.next().expect("a path after --json").into(),
            Some("--program") => {
                let path = rest.next().expect("a path after --program");
                // It is started in another folder.
                sandbox::measure_another(std::path::absolute(path).expect("a path"));
            }
            // By cargo.
            Some("--bench") => {}
            name => filter = name.map(str::to_owned),
        }
    }
    let is_wanted = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let mut figures = Vec::new();
    for (name, time, measure) in SUBJECTS.iter().filter(|(name, ..)| is_wanted(name)) {
        say(&format!("{name} ({time})"));
        figures.extend(measure());
    }
    let _ = io::stdout().write_all(figure::table(&figures).as_bytes());
    fs::write(&path, figure::json(&figures)).expect("a file for the results");
    say(&format!("written to {}", path.display()));
}

/// For whoever waits.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
