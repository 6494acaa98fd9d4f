//! The promises of backupnizza, each seen from outside: a file per promise, all in one binary.
//!
//! Every test has a folder, a configuration and, where it needs one, a daemon of its own; see
//! `harness`. None waits for a fixed time: what is to happen is waited for, with a deadline.

mod harness;

// What is read, and what is said about it.
mod check;
mod schedule;

// Secrets: where they come from, who gets them, and how.
mod deliver;
mod other_user;
mod redeem;
mod source;

// Runs: from the command to its outcome, and to those who are told of it.
mod hooks;
mod recipes;
mod run;
mod swap;

// The two programs that run tasks.
mod daemon;
mod once;

// Under a service manager, and watched.
mod metrics;
mod service;

// What people ask of a running daemon.
mod control;

// Thieves and vandals; what they do is Linux's.
#[cfg(target_os = "linux")]
mod attacks;

// The real tools.
mod borg;
mod rclone;
mod restic;

// What it costs, in counts; the times are in tests/bench.
#[cfg(target_os = "linux")]
mod cost;

// The code itself, and what is said about it.
mod crates;
mod readme;
mod tidy;

// The scheduler's word: through crashes, clock changes, waiting and stops.
mod clock;
mod conditions;
mod disk;
mod due;
mod many;
mod retry;
mod slow_disk;
mod stop;
mod storm;
