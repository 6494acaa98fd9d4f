//! Debian's cron as a peer, where it is installed: with nothing to do, and out of the way of the machine's own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::sandbox::eventually;

/// For its start.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Cron(Child);

/// Its crontabs and its pid file are those of a mount namespace of its own (unshare(1)), which are empty.
const START: &str = "for folder in /etc/cron.d /var/spool/cron /run; do mount -t tmpfs none $folder; done \
                     && mkdir -p /var/spool/cron/crontabs && mount --bind /dev/null /etc/crontab && exec cron -f";

impl Cron {
    /// `None` where there is none, or where this user may not start one.
    pub fn start() -> Option<Cron> {
        let installed = Command::new("sh").args(["-c", "command -v cron"]).stdout(Stdio::null()).status();
        if !installed.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut cron = Cron(command.spawn().ok()?);
        let mut is_running = false;
        eventually("cron to start, or to give up", PATIENCE, || {
            let name = fs::read_to_string(format!("/proc/{}/comm", cron.0.id()));
            is_running = name.is_ok_and(|name| name == "cron\n");
            is_running || !matches!(cron.0.try_wait(), Ok(None))
        });
        is_running.then_some(cron)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Cron {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
