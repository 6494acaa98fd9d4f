//! What it costs a command to get its secret: the whole client, the conversation alone, many at once.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::figure::{Figure, Limit, Samples, Unit};
use crate::sandbox::{ONE_PROCESSOR, Sandbox, eventually, placed};

const ECHO: &str = "an echo over a unix socket";

const CONNECTIONS: [&str; 2] = ["connection to ours", "connection to the floor"];

/// How often each of them has its turn.
const ROUNDS: usize = 4;

/// How many live tokens there are while one is redeemed.
const TOKENS: [usize; 3] = [1, 100, 10_000];

pub fn figures() -> Vec<Figure> {
    let sandbox = Sandbox::new();
    let _echo = Echo::start(&sandbox.path("echo"), &[]);
    let (ours, floor) = inside(&sandbox, &["process"], 300, 1);
    let process = Figure::new("one redemption, whole process", Unit::Microseconds, ours)
        .beside("/bin/true", floor)
        .limit(Limit::TimesFloor { median: 1.2, p95: None });
    let (ours, floor) = inside(&sandbox, &["throughput"], 0, 1);
    let throughput = Figure::new("redemptions a second, 8 clients", Unit::PerSecond, ours)
        .beside(ECHO, floor)
        .limit(Limit::PartOfFloor(0.6));
    // Where the kernel puts the daemon is no matter of its own: on the client's processor, or on another, which is to
    // be woken twice.
    vec![process, connection("", &[]), connection(", on one processor", ONE_PROCESSOR), throughput]
}

fn connection(how: &str, placement: &'static [&'static str]) -> Figure {
    let sandbox = Sandbox::new().placed(placement);
    let _echo = Echo::start(&sandbox.path("echo"), placement);
    let (ours, floor) = inside(&sandbox, &CONNECTIONS.repeat(ROUNDS), 1000, 1);
    Figure::new(format!("one redemption, connect to last byte{how}"), Unit::Microseconds, ours)
        .beside(ECHO, floor)
        .limit(Limit::TimesFloor { median: 2.0, p95: Some(4.0) })
}

/// How the number of live tokens matters to one that is redeemed.
pub fn growth() -> Vec<Figure> {
    let sandbox = Sandbox::new();
    let _echo = Echo::start(&sandbox.path("echo"), &[]);
    let figure = |tokens| {
        let (ours, floor) = inside(&sandbox, &CONNECTIONS, 1000, tokens);
        Figure::new(format!("growth: one redemption of {tokens} live tokens"), Unit::Microseconds, ours)
            .beside(ECHO, floor)
    };
    TOKENS.map(figure).into()
}

/// Lets a daemon run this benchmark's other half as tasks that have been given `tokens` tokens.
fn inside(sandbox: &Sandbox, measured: &[&str], count: usize, tokens: usize) -> (Samples, Samples) {
    let own = std::env::current_exe().expect("this program");
    let (echo, results) = (sandbox.text("echo"), sandbox.text("results"));
    let token = |name: &str| format!("      {name}: {{secret: vault, as: command, uses: 1000000}}\n");
    let others: String = (1..tokens).map(|number| token(&format!("T{number}"))).collect();
    let task = |(number, what): (usize, &&str)| {
        format!(
            "  - name: inside-{number}\n    command: [{}, inside, {what}, \"{count}\", {echo}, {results}]\n    environment:\n{}{others}",
            own.display(),
            token("TOKEN"),
        )
    };
    sandbox.config("", &measured.iter().enumerate().map(task).collect::<String>());
    let daemon = sandbox.daemon();
    (0..measured.len()).for_each(|number| daemon.run(&format!("inside-{number}")));
    let text = fs::read_to_string(&results).expect("results");
    fs::remove_file(&results).expect("they can be removed");
    let series = |name: &str| {
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Samples::new(values.collect())
    };
    (series("ours "), series("floor "))
}

/// The floor's server, in a process of its own as the daemon is.
struct Echo(Child);

impl Echo {
    fn start(socket: &Path, placement: &[&str]) -> Echo {
        let own = std::env::current_exe().expect("this program");
        let echo = Echo(placed(placement, &own).arg("echo").arg(socket).spawn().expect("a server"));
        eventually("the echo server", Duration::from_secs(10), || socket.exists());
        echo
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
