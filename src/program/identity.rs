//! By what a file is known again: remembered when a program is looked at, sent to the launcher as
//! bytes, and compared there with the opened file right before exec. The change time cannot be
//! set back by anyone but root (with the clock), so a write between two looks shows.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What stat(2) says of a file, as far as it tells one file and one state of it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Last write: seconds since 1970 and nanoseconds.
    modified: (i64, i64),
    /// Last change of contents, mode, owner, name or links: seconds since 1970 and nanoseconds.
    changed: (i64, i64),
    mode: u32,
    uid: u32,
}

impl Identity {
    /// Length of the form in bytes.
    pub const BYTES: usize = 64;

    /// The identity of a file of which this is the metadata, from a path or an open descriptor.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
            uid: metadata.uid(),
        }
    }

    /// The form that goes to the launcher: seven numbers of 8 bytes, then mode and owner of 4,
    /// all little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let numbers = [
            self.device.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.size.to_le_bytes(),
            self.modified.0.to_le_bytes(),
            self.modified.1.to_le_bytes(),
            self.changed.0.to_le_bytes(),
            self.changed.1.to_le_bytes(),
        ];
        let mut bytes = [0; Self::BYTES];
        bytes[..56].copy_from_slice(numbers.as_flattened());
        bytes[56..60].copy_from_slice(&self.mode.to_le_bytes());
        bytes[60..].copy_from_slice(&self.uid.to_le_bytes());
        bytes
    }

    /// The inverse of `to_bytes`; any bytes are some identity.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let (halves, _) = bytes.as_chunks::<4>();
        Self {
            device: u64::from_le_bytes(numbers[0]),
            inode: u64::from_le_bytes(numbers[1]),
            size: u64::from_le_bytes(numbers[2]),
            modified: (i64::from_le_bytes(numbers[3]), i64::from_le_bytes(numbers[4])),
            changed: (i64::from_le_bytes(numbers[5]), i64::from_le_bytes(numbers[6])),
            mode: u32::from_le_bytes(halves[14]),
            uid: u32::from_le_bytes(halves[15]),
        }
    }

    /// In which way `now` differs, for a message; `None` when it does not.
    pub fn change(&self, now: &Self) -> Option<&'static str> {
        if self == now {
            None
        } else if (self.device, self.inode) != (now.device, now.inode) {
            Some("another file is there now")
        } else if (self.size, self.modified) != (now.size, now.modified) {
            Some("it was written to")
        } else if (self.mode, self.uid) != (now.mode, now.uid) {
            Some("its mode or owner is another")
        } else {
            Some("its change time is another")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_identity() -> Identity {
        Identity {
            device: u64::MAX,
            inode: 2,
            size: 3,
            modified: (-4, 999_999_999),
            changed: (i64::MIN, 6),
            mode: 0o100_755,
            uid: u32::MAX,
        }
    }

    #[test]
    fn bytes_and_back() {
        let identity = some_identity();
        assert_eq!(Identity::from_bytes(&identity.to_bytes()), identity);
    }

    #[test]
    fn every_field_counts() {
        let was = some_identity();
        for place in [0, 8, 16, 24, 32, 40, 48, 56, 60] {
            let mut bytes = was.to_bytes();
            bytes[place] ^= 1;
            let now = Identity::from_bytes(&bytes);
            assert!(was.change(&now).is_some(), "byte {place}");
        }
        assert_eq!(was.change(&was), None);
    }
}
