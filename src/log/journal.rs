//! Whether the journal reads stderr: systemd.exec(5), `JOURNAL_STREAM`.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// Whether stderr is what systemd connected to the journal. Looked at once: it stays so.
pub fn reads_stderr() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let stream = env::var("JOURNAL_STREAM").ok();
        stream.is_some_and(|stream| stderr_is().is_ok_and(|(device, inode)| stream == format!("{device}:{inode}")))
    })
}

/// The device and inode of stderr.
fn stderr_is() -> io::Result<(u64, u64)> {
    let metadata = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
