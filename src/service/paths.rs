//! Where a plan's commands write on this machine, as far as its configuration tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Facts, enabled, needs::Needs};
use crate::error::Error;
use crate::plan::{Plan, Value};

/// Variables that name a repository or a folder which its tool fills.
const WRITTEN: [&str; 12] = [
    "RESTIC_REPOSITORY",
    "RESTIC_FROM_REPOSITORY",
    "RESTIC_CACHE_DIR",
    "BORG_REPO",
    "BORG_BASE_DIR",
    "BORG_CACHE_DIR",
    "BORG_CONFIG_DIR",
    "BORG_SECURITY_DIR",
    "RCLONE_CACHE_DIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "TMPDIR",
];

/// Options of restic and borg that name a repository.
const REPOSITORY_OPTIONS: [&str; 3] = ["-r", "--repo", "--from-repo"];

/// What the tools keep in a home: caches, and what they would fail without being able to renew.
const KEPT_IN_HOME: [&str; 4] = [".cache", ".config/borg", ".config/rclone", ".config/op"];

/// Under these disks come and go. A folder on one of them, opened by itself, would keep the disk
/// from being taken out, or would not be there yet.
const MOUNTS: [&str; 3] = ["/run/media", "/media", "/mnt"];

/// Queues of mail.
const MAIL: [&str; 3] = ["/var/spool", "/var/mail", "/var/log/exim4"];

/// A service has its own, empty.
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];

/// Folders that have to be there before a sandbox opens them, besides those that systemd makes.
pub fn to_make(plan: &Plan, facts: &Facts) -> Vec<PathBuf> {
    let mut folders = vec![facts.home.join(".cache")];
    folders.extend((!has_own_state(plan)).then(|| plan.state_dir.clone()));
    folders.extend(plan.secretbox.socket.parent().filter(|folder| !is_runtime(folder)).map(Path::to_owned));
    folders
}

/// Whether the state is where systemd makes a folder for it.
pub fn has_own_state(plan: &Plan) -> bool {
    plan.state_dir == Path::new("/var/lib/backupnizza")
}

fn is_runtime(folder: &Path) -> bool {
    folder == Path::new("/run/backupnizza")
}

/// What may be missing and is to be writable where it is there, in order.
pub fn writable(plan: &Plan, facts: &Facts) -> Vec<PathBuf> {
    let mut all: BTreeSet<PathBuf> = to_make(plan, facts).into_iter().collect();
    all.extend(plan.metrics_file.iter().filter_map(|file| file.parent()).map(Path::to_owned));
    let users = enabled(plan).flat_map(|task| task.commands()).filter_map(|step| step.user.as_ref());
    for home in users.map(|user| Path::new(&user.home)).chain([facts.home.as_path()]) {
        all.extend(KEPT_IN_HOME.map(|name| home.join(name)));
    }
    all.extend(named(plan));
    if Needs::of(plan).mail {
        all.extend(MAIL.map(PathBuf::from));
    }
    all.into_iter().map(whole_mounts).collect::<BTreeSet<_>>().into_iter().collect()
}

fn whole_mounts(path: PathBuf) -> PathBuf {
    MOUNTS.iter().map(Path::new).find(|mounts| path.starts_with(mounts)).map_or(path, Path::to_owned)
}

/// The local folders that variables and options of the plan's commands name.
fn named(plan: &Plan) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for step in enabled(plan).flat_map(|task| task.commands()) {
        paths.extend(step.environment.iter().filter_map(|(name, value)| match value {
            Value::Text(text) if WRITTEN.contains(&name.as_str()) => local(text),
            _ => None,
        }));
        let behind = step.arguments.windows(2).filter(|pair| REPOSITORY_OPTIONS.contains(&pair[0].as_str()));
        paths.extend(behind.filter_map(|pair| local(&pair[1])));
        let joined = step.arguments.iter().filter_map(|argument| argument.split_once('='));
        paths.extend(joined.filter(|(name, _)| REPOSITORY_OPTIONS.contains(name)).filter_map(|(_, path)| local(path)));
    }
    paths
}

/// A repository on this machine, as restic and borg name it.
fn local(repository: &str) -> Option<PathBuf> {
    let path = ["local:", "file://"].iter().find_map(|prefix| repository.strip_prefix(prefix)).unwrap_or(repository);
    let is_plain = path.starts_with('/') && path != "/" && !path.contains(char::is_control);
    is_plain.then(|| PathBuf::from(path))
}

/// What the service would not see, because it has temporary folders of its own.
pub fn hidden(plan: &Plan, facts: &Facts) -> Vec<Error> {
    let variable = facts.variables.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let needed =
        [facts.program.as_str(), facts.config.as_str()].into_iter().chain(variable.split(':')).map(PathBuf::from);
    let all = needed.chain([plan.state_dir.clone()]).chain(named(plan));
    let mut hidden: Vec<PathBuf> = all.filter(|path| PRIVATE.iter().any(|folder| path.starts_with(folder))).collect();
    hidden.dedup();
    let what = "not there for the service, which has temporary folders of its own";
    let hint = "move it to another folder, or set PrivateTmp=no in the unit";
    hidden.iter().map(|path| Error::new(path.display(), what).hint(hint)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{facts, plan};
    use super::*;

    fn shown(paths: Vec<PathBuf>) -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn state_metrics_caches_and_local_repositories_are_writable() {
        let plan = plan(
            r#"
state_dir: /srv/state
metrics_file: /var/lib/node/backup.prom
defaults: {environment: {RESTIC_REPOSITORY: /srv/my vault, BORG_REPO: "ssh://host/./repo", TMPDIR: ~/tmp}}
tasks:
  - {name: a, command: [restic, backup, /home]}
  - {name: b, command: [restic, -r, "local:/srv/two", check]}
  - {name: c, command: [restic, --repo=/srv/three, check]}
  - {name: off, command: [restic, --repo=/srv/four, check], enabled: false}
"#,
        );
        assert_eq!(
            shown(writable(&plan, &facts())),
            [
                "/root/.cache",
                "/root/.config/borg",
                "/root/.config/op",
                "/root/.config/rclone",
                "/root/tmp",
                "/srv/my vault",
                "/srv/state",
                "/srv/three",
                "/srv/two",
                "/var/lib/node"
            ]
        );
        assert_eq!(shown(to_make(&plan, &facts())), ["/root/.cache", "/srv/state"]);
    }

    #[test]
    fn where_disks_come_and_go_the_whole_folder_is_writable() {
        let plan = plan("tasks: [{name: a, command: [restic, -r, /mnt/usb/vault, check]}]");
        let writable = shown(writable(&plan, &facts()));
        assert!(
            writable.contains(&"/mnt".to_owned()) && !writable.contains(&"/mnt/usb/vault".to_owned()),
            "{writable:?}"
        );
    }

    #[test]
    fn what_lies_in_temporary_folders_is_told() {
        let plan = plan("tasks: [{name: a, command: [restic, -r, /var/tmp/vault, check]}]");
        let facts = Facts { config: "/tmp/backup.yaml".to_owned(), ..facts() };
        let objects: Vec<String> = hidden(&plan, &facts).into_iter().map(|error| error.object).collect();
        assert_eq!(objects, ["/tmp/backup.yaml", "/var/tmp/vault"]);
    }
}
