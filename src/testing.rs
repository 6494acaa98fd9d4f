//! For tests: numbers from a seed, inputs damaged by them, and the run of very many inputs, each of which must come to
//! an end. Every input has a seed of its own, which is told when one fails, so that it can be repeated alone.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How many inputs `fuzz` makes: the many want an optimised build.
const INPUTS: u64 = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };

/// For other seeds than 0, 1, 2, …: the first one, and how many follow.
const FIRST_SEED_VARIABLE: &str = "BACKUPNIZZA_FUZZ_FIRST";
const INPUTS_VARIABLE: &str = "BACKUPNIZZA_FUZZ_INPUTS";

/// So few inputs need not have good ones among them.
const FEW: u64 = 5_000;

/// An input that takes longer hangs: they take microseconds.
const INPUT_TIME: Duration = Duration::from_secs(60);

/// Numbers from a seed, the same ones each time (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// A number of any size, the ends of its range and small ones far more often than by chance.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64, u64::from(u32::MAX)]),
            1 => self.next() % 100,
            _ => self.next() >> self.below(64),
        }
    }

    pub fn bytes(&mut self, alphabet: &[u8], len: usize) -> Vec<u8> {
        (0..len).map(|_| self.pick(alphabet)).collect()
    }

    /// Fewer than `limit` of the pieces, one after the other.
    pub fn soup(&mut self, pieces: &[&str], limit: usize) -> String {
        (0..self.below(limit)).map(|_| self.pick(pieces)).collect()
    }

    /// All of `rest` in chunks of one byte to `longest`.
    pub fn chunks<'a>(&mut self, mut rest: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (chunk, next) = rest.split_at(1 + self.below(rest.len().min(longest)));
            chunks.push(chunk);
            rest = next;
        }
        chunks
    }

    /// `text` with some changes, most of them by `pieces`; what is no UTF-8 any more becomes U+FFFD.
    pub fn mutated(&mut self, text: &str, pieces: &[&str]) -> String {
        let mut bytes = text.as_bytes().to_vec();
        self.mutate(&mut bytes, pieces);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Changes `bytes` in one to four places.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, pieces: &[&str]) {
        for _ in 0..=self.below(4) {
            let from = self.below(bytes.len() + 1);
            let to = (from + self.below(8)).min(bytes.len());
            match self.below(8) {
                0..=2 => drop(bytes.splice(from..from, self.pick(pieces).bytes())),
                3 | 4 => drop(bytes.splice(from..to, self.pick(pieces).bytes())),
                5 => drop(bytes.drain(from..to)),
                6 => {
                    let copied = bytes[from..(from + self.below(100)).min(bytes.len())].to_vec();
                    let at = self.below(bytes.len() + 1);
                    drop(bytes.splice(at..at, copied));
                }
                _ if from < to => bytes[from] = self.byte(),
                _ => bytes.truncate(from),
            }
        }
    }
}

/// Has `check` look at very many inputs, which it makes of the numbers that it is given. It says whether the input was
/// a good one, as at least one in `rare` must be: else the inputs would try little.
pub fn fuzz(rare: u64, mut check: impl FnMut(&mut Random) -> bool) {
    let first = number_of(FIRST_SEED_VARIABLE).unwrap_or(0);
    let inputs = number_of(INPUTS_VARIABLE).unwrap_or(INPUTS);
    let watch = Watch::begin();
    let mut good = 0;
    for seed in first..first + inputs {
        watch.seed.store(seed, Ordering::Relaxed);
        good += u64::from(check(&mut Random::new(seed)));
    }
    drop(watch);
    assert!(inputs < FEW || good >= inputs / rare, "only {good} of {inputs} inputs are good ones");
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Looks on from a thread of its own: a hang ends the tests, and so does a panic; both tell the seed.
struct Watch {
    test: String,
    seed: Arc<AtomicU64>,
    /// Its end is the thread's.
    _running: Sender<()>,
}

impl Watch {
    fn begin() -> Watch {
        let (running, end) = mpsc::channel();
        let test = thread::current().name().unwrap_or_default().to_owned();
        let seed = Arc::new(AtomicU64::new(0));
        let watched = (test.clone(), Arc::clone(&seed));
        thread::spawn(move || end_a_hang(&watched.0, &watched.1, &end));
        Watch { test, seed, _running: running }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            tell(&self.test, "fails", self.seed.load(Ordering::Relaxed));
        }
    }
}

fn end_a_hang(test: &str, seed: &AtomicU64, end: &Receiver<()>) {
    let mut before = None;
    while end.recv_timeout(INPUT_TIME) == Err(RecvTimeoutError::Timeout) {
        let now = seed.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            tell(test, "hangs", now);
            std::process::abort();
        }
    }
}

fn tell(test: &str, how: &str, seed: u64) {
    let again = format!("{FIRST_SEED_VARIABLE}={seed} {INPUTS_VARIABLE}=1 cargo test {test}");
    let _ = writeln!(std::io::stderr(), "{test} {how} with input {seed}; once more: {again}");
}
