//! Tells systemd how the daemon is: sd_notify(3) by hand, a datagram at a time.
//!
//! Whoever started the daemon without `NOTIFY_SOCKET` hears nothing. What cannot be sent is
//! dropped: a service manager that does not listen must not stop a backup.

use std::env;
use std::ffi::OsString;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use crate::sys;

/// The longest wait for a manager whose queue is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the service manager, if there is one.
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    status: String,
    watchdog: Option<Watchdog>,
}

/// That the manager wants to hear from the daemon in time.
struct Watchdog {
    period: Duration,
    due: Instant,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    pub fn from_environment() -> Notifier {
        let manager = env::var_os("NOTIFY_SOCKET").and_then(connect);
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(process::id()));
        let usec = number("WATCHDOG_USEC").filter(|&usec| usec > 0 && is_meant && manager.is_some());
        let watchdog = usec.map(|usec| Watchdog { period: Duration::from_micros(usec) / 2, due: Instant::now() });
        Notifier { manager, status: String::new(), watchdog }
    }

    /// The daemon has its secrets and answers at its socket.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon begins to stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A line about what the daemon is doing, told when it changes.
    pub fn status(&mut self, status: impl FnOnce() -> String) {
        if self.manager.is_none() {
            return;
        }
        let status = status();
        if status != self.status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// Tells that the caller's loop still turns, when it is time to.
    pub fn beat(&mut self) {
        let now = Instant::now();
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.due <= now) {
            watchdog.due = now + watchdog.period;
            self.send("WATCHDOG=1");
        }
    }

    /// How long until the next beat.
    pub fn next_beat(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due.saturating_duration_since(Instant::now()))
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.manager {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

fn connect(address: OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let address = sys::socket_address(&address).ok()?;
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some((socket, address))
}
