//! What the kernel's clocks read.

use std::time::Duration;

use super::os::{AWAKE_CLOCK, BOOT_CLOCK};

/// Time since boot, counting time spent suspended.
pub fn boot_clock() -> Duration {
    read(BOOT_CLOCK)
}

/// Time since boot, not counting time spent suspended.
pub fn awake_clock() -> Duration {
    read(AWAKE_CLOCK)
}

/// Time since 1970; a clock that was set before reads 1970.
pub fn wall_clock() -> Duration {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, and these clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), time.tv_nsec as u32)
}
