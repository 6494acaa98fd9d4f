//! Whether another user may execute a file, as far as modes tell: in a folder that is closed to the user as
//! whom it is to run, a program that root finds is none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// A user with all of its groups.
#[derive(Debug, Clone, Copy)]
pub struct Rights<'a> {
    pub uid: u32,
    pub groups: &'a [u32],
}

/// The first folder on the way to the file at `path`, or the file, that these rights do not suffice for, links
/// followed. Where an access list decides, or nothing is to be seen, none is named.
pub fn closed_to(path: &Path, rights: Rights<'_>) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let way: Vec<&Path> = real.ancestors().collect();
    let closed = way.into_iter().rev().find(|place| is_closed(place, rights))?;
    Some(closed.to_owned())
}

fn is_closed(place: &Path, rights: Rights<'_>) -> bool {
    fs::metadata(place).is_ok_and(|metadata| {
        !may_execute(metadata.mode(), metadata.uid(), metadata.gid(), rights) && !sys::has_access_list(place)
    })
}

/// The owner's permission is the owner's alone, even if it is less than that of others (path_resolution(7)).
fn may_execute(mode: u32, owner: u32, group: u32, Rights { uid, groups }: Rights<'_>) -> bool {
    const EXECUTE: u32 = 1;
    let shift = if uid == owner {
        6
    } else if groups.contains(&group) {
        3
    } else {
        0
    };
    mode >> shift & EXECUTE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_class_decides() {
        let rights = Rights { uid: 7, groups: &[70, 71] };
        for (mode, owner, group, may) in [
            (0o100, 7, 1, true),
            (0o011, 7, 70, false),
            (0o010, 1, 71, true),
            (0o101, 1, 70, false),
            (0o001, 1, 1, true),
            (0o110, 1, 1, false),
        ] {
            assert_eq!(may_execute(mode, owner, group, rights), may, "{mode:o} of {owner}:{group}");
        }
    }
}
