//! Whom a path trusts: everyone who can change the file, or any folder or link on the way to it.
//! The walk follows links itself, one name at a time like the kernel, because the folder in which
//! a link stands decides as much as the one to which it leads. `judge` is the rule, pure; `walk`
//! goes and looks.

use crate::error::Error;
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// As many links as Linux follows in one path before it gives up (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The owner that Linux shows for one it cannot name, unless `overflowuid` says otherwise.
const OVERFLOW_UID: u32 = 65534;
const ROOT: u32 = 0;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Something legal that the user should know of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// What it is about: a path.
    pub object: String,
    pub what: String,
    pub hint: Option<String>,
}

/// Walks to `path` (relative ones from the current folder) and says whether anyone but root and
/// this process's user could change what it leads to. The warnings tell of groups that can.
pub fn trust_walk(path: &Path) -> Result<Vec<Warning>, Error> {
    Ok(walk(path, &Viewer::this_process())?.warnings)
}

/// Who looks at an owner: whose files it trusts besides root's, and which owner is only a mask.
pub(super) struct Viewer {
    user: u32,
    /// As whom a command will run, if not as `user`: what is that user's own harms nobody else.
    other: Option<u32>,
    hidden_owner: Option<u32>,
}

impl Viewer {
    /// This process's user, in its user namespace.
    pub(super) fn this_process() -> Self {
        Self::running_as(None)
    }

    /// As `this_process`, for a command that runs as `other`.
    pub(super) fn running_as(other: Option<u32>) -> Self {
        // Looked at once: a process stays in its user namespace.
        static HIDDEN_OWNER: OnceLock<Option<u32>> = OnceLock::new();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let hidden_owner = *HIDDEN_OWNER.get_or_init(|| {
            let linux = cfg!(target_os = "linux");
            linux.then(|| hidden_owner(&read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid"))).flatten()
        });
        Self { user: sys::effective_uid(), other, hidden_owner }
    }
}

/// The owner behind which a user namespace hides those that it does not map; none where it maps
/// all of them (user_namespaces(7)), so that a daemon may well run as user 65534.
fn hidden_owner(uid_map: &str, overflow_uid: &str) -> Option<u32> {
    let mapped: u64 = uid_map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if mapped >= u64::from(u32::MAX) {
        return None;
    }
    Some(overflow_uid.trim().parse().unwrap_or(OVERFLOW_UID))
}

/// What decides about one folder or file.
struct Standing {
    folder: bool,
    owner: u32,
    mode: u32,
    group_is_owners: bool,
}

impl Standing {
    /// Of what stands at `path`, which is no link.
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let (owner, mode) = (metadata.uid(), metadata.mode());
        Self {
            folder: metadata.is_dir(),
            owner,
            mode,
            group_is_owners: mode & GROUP_WRITE != 0
                && sys::group_is_private(metadata.gid(), owner)
                && !sys::has_access_list(path),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    OnlyRoot,
    OnlyRootAndUser,
    /// Others may put names into it, but not change those of root and the user.
    Sticky,
    GroupMayWrite,
    Distrusted(Distrust),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distrust {
    HiddenOwner,
    OtherOwner,
    OthersMayWrite,
}

/// Who can change this folder or file, and whether that is to be trusted.
fn judge(thing: &Standing, viewer: &Viewer) -> Verdict {
    if let Some(distrust) = judge_owner(thing.owner, viewer) {
        return Verdict::Distrusted(distrust);
    }
    let others = thing.mode & OTHERS_WRITE != 0;
    let group = thing.mode & GROUP_WRITE != 0 && !thing.group_is_owners;
    if (others || group) && thing.folder && thing.mode & STICKY != 0 {
        Verdict::Sticky
    } else if others {
        Verdict::Distrusted(Distrust::OthersMayWrite)
    } else if group {
        Verdict::GroupMayWrite
    } else if thing.owner == ROOT {
        Verdict::OnlyRoot
    } else {
        Verdict::OnlyRootAndUser
    }
}

fn judge_owner(owner: u32, viewer: &Viewer) -> Option<Distrust> {
    if viewer.hidden_owner == Some(owner) {
        Some(Distrust::HiddenOwner)
    } else if owner != ROOT && owner != viewer.user && viewer.other != Some(owner) {
        Some(Distrust::OtherOwner)
    } else {
        None
    }
}

/// What a walk has found out.
pub(super) struct Walk {
    /// The path without links.
    pub(super) real: PathBuf,
    /// Of what stands there.
    pub(super) metadata: Metadata,
    /// Only root can change it and every folder on the way.
    pub(super) only_root: bool,
    /// It is a folder into which others may put names.
    pub(super) sticky: bool,
    pub(super) warnings: Vec<Warning>,
}

/// Goes to `path` from the root, name by name, and judges all that it meets.
pub(super) fn walk(path: &Path, viewer: &Viewer) -> Result<Walk, Error> {
    let absolute = std::path::absolute(path).map_err(|e| unreachable_path(path, &e))?;
    let mut walker = Walker {
        viewer,
        here: PathBuf::from("/"),
        metadata: look("/".as_ref())?,
        pending: Vec::new(),
        links: 0,
        sticky: false,
        only_root: true,
        warnings: Vec::new(),
    };
    walker.arrive()?;
    walker.push(&absolute);
    while let Some(name) = walker.pending.pop() {
        walker.step(&name)?;
    }
    Ok(Walk {
        real: walker.here,
        metadata: walker.metadata,
        only_root: walker.only_root,
        sticky: walker.sticky,
        warnings: walker.warnings,
    })
}

struct Walker<'a> {
    viewer: &'a Viewer,
    /// Where the walk stands; no part of it is a link.
    here: PathBuf,
    metadata: Metadata,
    /// The names still to go, the next one last.
    pending: Vec<OsString>,
    links: usize,
    /// `here` is a folder into which others may put links.
    sticky: bool,
    only_root: bool,
    warnings: Vec<Warning>,
}

impl Walker<'_> {
    fn step(&mut self, name: &OsStr) -> Result<(), Error> {
        if !self.metadata.is_dir() {
            return Err(Error::new(shown(&self.here), "is not a folder"));
        }
        let next =
            if name == ".." { self.here.parent().unwrap_or(&self.here).to_path_buf() } else { self.here.join(name) };
        let metadata = look(&next)?;
        if metadata.is_symlink() {
            return self.follow(&next, &metadata);
        }
        self.here = next;
        self.metadata = metadata;
        self.arrive()
    }

    /// Judges where the walk stands.
    fn arrive(&mut self) -> Result<(), Error> {
        let verdict = judge(&Standing::of(&self.here, &self.metadata), self.viewer);
        self.sticky = verdict == Verdict::Sticky;
        self.only_root &= verdict == Verdict::OnlyRoot;
        match verdict {
            Verdict::Distrusted(distrust) => Err(distrusted(&self.here, &self.metadata, distrust, self.viewer)),
            Verdict::GroupMayWrite => {
                self.warn(group_may_write(&self.here, &self.metadata));
                Ok(())
            }
            Verdict::OnlyRoot | Verdict::OnlyRootAndUser | Verdict::Sticky => Ok(()),
        }
    }

    /// Goes on where a link leads. Who owns it matters only in a sticky folder: elsewhere only
    /// those can replace it who can write the folder, and that has been judged.
    fn follow(&mut self, link: &Path, metadata: &Metadata) -> Result<(), Error> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Error::new(shown(link), format!("more than {LINKS_MAX} links on the way")));
        }
        if self.sticky
            && let Some(distrust) = judge_owner(metadata.uid(), self.viewer)
        {
            return Err(distrusted(link, metadata, distrust, self.viewer));
        }
        let target = fs::read_link(link).map_err(|e| unreachable_path(link, &e))?;
        if target.is_absolute() {
            self.here = PathBuf::from("/");
            self.metadata = look(&self.here)?;
            self.arrive()?;
        }
        self.push(&target);
        Ok(())
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.pending.extend(names);
    }

    fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn look(path: &Path) -> Result<Metadata, Error> {
    fs::symlink_metadata(path).map_err(|e| unreachable_path(path, &e))
}

/// The error for a path that cannot be looked at.
pub(super) fn unreachable_path(path: &Path, error: &io::Error) -> Error {
    Error::new(
        shown(path),
        match error.kind() {
            io::ErrorKind::NotFound => "does not exist".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            other => format!("cannot be looked at: {other}"),
        },
    )
}

fn distrusted(path: &Path, metadata: &Metadata, distrust: Distrust, viewer: &Viewer) -> Error {
    let shown = shown(path);
    let mut user = "root".to_owned();
    for uid in Some(viewer.user).filter(|uid| *uid != ROOT).into_iter().chain(viewer.other) {
        let _ = write!(user, " or uid {uid}");
    }
    let special = !metadata.is_dir() && !metadata.is_file() && !metadata.is_symlink();
    let (what, hint) = match distrust {
        // Nothing to repair: /dev/null must stay as it is.
        Distrust::OthersMayWrite if special => {
            return Error::new(shown, "is a device, pipe or socket that everyone can write");
        }
        Distrust::OthersMayWrite => ("writable by everyone".to_owned(), format!("chmod o-w {shown}")),
        Distrust::OtherOwner => (
            format!("belongs to uid {}, expected {user}", metadata.uid()),
            "chown it; where it is a bind mount, of a container say, mount it with an owner that \
             is trusted"
                .to_owned(),
        ),
        Distrust::HiddenOwner => (
            format!("its owner is hidden by the user namespace, expected {user}"),
            "map root and the owner into the namespace (containers; PrivateUsers= of systemd), or \
             give bind mounts an owner that it maps"
                .to_owned(),
        ),
    };
    Error::new(shown, what).hint(hint)
}

fn group_may_write(path: &Path, metadata: &Metadata) -> Warning {
    let object = shown(path);
    // With an access list the group's permission is that of all whom the list names (acl(5), mask).
    let others = if sys::has_access_list(path) { ", or by others that its access list names" } else { "" };
    Warning {
        what: format!("writable by its group, gid {}{others}", metadata.gid()),
        hint: Some(format!("chmod g-w {object}")),
        object,
    }
}

/// A path for a message: control characters, those that reorder or hide text, and bytes that are
/// not UTF-8 are escaped.
pub fn shown(path: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || hides_text(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Blanks without width, line separators, and the marks of text that runs from right to left.
fn hides_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use std::os::unix::fs::symlink;

    const ME: u32 = 1000;

    fn verdict(folder: bool, owner: u32, mode: u32, group_is_owners: bool) -> Verdict {
        let viewer = Viewer { user: ME, other: None, hidden_owner: Some(OVERFLOW_UID) };
        judge(&Standing { folder, owner, mode, group_is_owners }, &viewer)
    }

    #[test]
    fn root_and_the_user_are_trusted() {
        for folder in [false, true] {
            assert_eq!(verdict(folder, ROOT, 0o755, false), Verdict::OnlyRoot);
            assert_eq!(verdict(folder, ME, 0o755, false), Verdict::OnlyRootAndUser);
        }
    }

    #[test]
    fn other_owners_are_not() {
        let other = Verdict::Distrusted(Distrust::OtherOwner);
        let hidden = Verdict::Distrusted(Distrust::HiddenOwner);
        assert_eq!(verdict(true, 1001, 0o755, false), other);
        assert_eq!(verdict(true, 1001, 0o1777, false), other);
        assert_eq!(verdict(true, OVERFLOW_UID, 0o755, false), hidden);
    }

    #[test]
    fn others_must_not_write() {
        let others = Verdict::Distrusted(Distrust::OthersMayWrite);
        assert_eq!(verdict(true, ROOT, 0o757, false), others);
        assert_eq!(verdict(false, ME, 0o646, false), others);
        assert_eq!(verdict(false, ROOT, 0o777, true), others);
    }

    #[test]
    fn a_sticky_folder_passes_a_sticky_file_does_not() {
        let others = Verdict::Distrusted(Distrust::OthersMayWrite);
        assert_eq!(verdict(true, ROOT, 0o1777, false), Verdict::Sticky);
        assert_eq!(verdict(true, ROOT, 0o1775, false), Verdict::Sticky);
        assert_eq!(verdict(true, ROOT, 0o1755, false), Verdict::OnlyRoot);
        assert_eq!(verdict(false, ROOT, 0o1777, false), others);
    }

    #[test]
    fn a_group_may_write_with_a_warning_unless_it_is_the_owners_own() {
        assert_eq!(verdict(true, ROOT, 0o775, false), Verdict::GroupMayWrite);
        assert_eq!(verdict(false, ME, 0o664, false), Verdict::GroupMayWrite);
        assert_eq!(verdict(false, ME, 0o664, true), Verdict::OnlyRootAndUser);
        assert_eq!(verdict(true, ROOT, 0o775, true), Verdict::OnlyRoot);
    }

    #[test]
    fn only_a_namespace_that_does_not_map_everyone_hides_owners() {
        let hidden = |map| hidden_owner(map, "65534\n");
        assert_eq!(hidden("         0          0 4294967295\n"), None);
        assert_eq!(hidden("0 1000 1\n1 100000 65536\n"), Some(65534));
        assert_eq!(hidden_owner("1000 1000 1\n", "99\n"), Some(99));
        assert_eq!(hidden_owner("", ""), Some(OVERFLOW_UID));
    }

    #[test]
    fn the_user_65534_is_trusted_where_nobody_is_hidden() {
        let viewer = Viewer { user: 65534, other: None, hidden_owner: None };
        assert_eq!(judge_owner(65534, &viewer), None);
    }

    #[test]
    fn a_file_in_a_folder_that_everyone_can_write_is_refused_with_the_folders_name() {
        let folder = Folder::new();
        let open = folder.folder("open");
        let file = folder.file("open/file", "", 0o644);
        folder.mode(&open, 0o777);
        let error = trust_walk(&file).expect_err("others may write the folder");
        assert_eq!(error.object, shown(&open));
        assert_eq!(error.what, "writable by everyone");
        folder.mode(&open, 0o1777);
        assert_eq!(trust_walk(&file), Ok(vec![]));
        folder.mode(&file, 0o666);
        assert!(trust_walk(&file).is_err());
    }

    #[test]
    fn the_folder_of_a_link_counts_and_so_does_the_folder_to_which_it_leads() {
        let folder = Folder::new();
        let (links, files) = (folder.folder("links"), folder.folder("files"));
        folder.file("files/file", "", 0o644);
        let link = links.join("link");
        symlink("../files/file", &link).expect("make a link");
        assert_eq!(trust_walk(&link), Ok(vec![]));
        for each in [&links, &files] {
            folder.mode(each, 0o757);
            let error = trust_walk(&link).expect_err("others may write the folder");
            assert_eq!(error.object, shown(each));
            folder.mode(each, 0o755);
        }
    }

    #[test]
    fn a_link_to_a_folder_on_the_way_counts_too() {
        let folder = Folder::new();
        let middle = folder.folder("middle");
        folder.folder("end");
        let file = folder.file("end/file", "", 0o644);
        symlink(folder.path("end"), middle.join("link")).expect("make a link");
        let through = middle.join("link/../end/file");
        let reached = walk(&through, &Viewer::this_process()).expect("trusted");
        assert_eq!(reached.real, fs::canonicalize(&file).expect("exists"));
        folder.mode(&middle, 0o777);
        let error = trust_walk(&through).expect_err("others may write the folder");
        assert_eq!(error.object, shown(&middle));
    }

    #[test]
    fn a_group_that_can_write_gives_one_warning() {
        let folder = Folder::new();
        let shared = folder.folder("shared");
        let file = folder.file("shared/file", "", 0o644);
        folder.mode(&shared, 0o775);
        let gid = fs::metadata(&shared).expect("exists").gid();
        let own = sys::group_is_private(gid, sys::effective_uid());
        let through = shared.join("../shared/file");
        let warnings = trust_walk(&through).expect("only a warning");
        assert_eq!(warnings.len(), usize::from(!own));
        folder.mode(&shared, 0o755);
        assert_eq!(trust_walk(&file), Ok(vec![]));
    }

    #[test]
    fn links_that_lead_nowhere_or_in_circles_are_errors() {
        let folder = Folder::new();
        symlink("b", folder.path("a")).expect("make a link");
        symlink("a", folder.path("b")).expect("make a link");
        symlink("missing", folder.path("dangling")).expect("make a link");
        let file = folder.file("file", "", 0o644);
        let what = |path: PathBuf| trust_walk(&path).expect_err("not a file").what;
        assert_eq!(what(folder.path("a")), "more than 40 links on the way");
        assert_eq!(what(folder.path("dangling")), "does not exist");
        assert_eq!(what(file.join("below")), "is not a folder");
        assert!(trust_walk(Path::new("")).is_err());
    }

    #[test]
    fn nobody_is_told_to_change_a_device() {
        let error = trust_walk(Path::new("/dev/null")).expect_err("not trusted");
        assert_eq!(error.hint, None);
    }

    #[test]
    fn messages_show_paths_without_control_characters() {
        let path = OsStr::from_bytes(b"/a\n\x1b[31m\xffb\xe2\x80\xae \xc3\xa9");
        assert_eq!(shown(path), "/a\\n\\u{1b}[31m\\xffb\\u{202e} é");
    }
}
