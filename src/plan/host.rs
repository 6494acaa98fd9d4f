//! What the surroundings say, as data: whose machine it is, and where files go by default.

use std::path::PathBuf;

use super::RunAs;

/// The socket of root's daemon on Linux.
const SYSTEM_SOCKET: &str = "/run/backupnizza/socket";

/// The systems that backupnizza runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Linux,
    MacOs,
}

/// Everything outside the file on which a plan depends.
#[derive(Debug, Clone)]
pub struct Host {
    pub system: System,
    /// Whether the daemon's user is root.
    pub root: bool,
    /// `$HOME`, else from the user database.
    pub home: PathBuf,
    pub current_dir: PathBuf,
    /// Absolute path of the configuration file.
    pub file: PathBuf,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, systemd's; may be a list with colons.
    pub runtime_directory: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, systemd's; may be a list with colons.
    pub state_directory: Option<PathBuf>,
    /// macOS's `_CS_DARWIN_USER_TEMP_DIR`.
    pub user_temp_dir: Option<PathBuf>,
    /// Who the user of a name is, `None` for the daemon's own, or why no command can run as that user.
    pub find_user: fn(&str) -> Result<Option<RunAs>, &'static str>,
}

impl Host {
    /// An ordinary user's Linux machine, to lint a file that is meant for another machine.
    pub fn elsewhere(file: PathBuf) -> Self {
        Host {
            system: System::Linux,
            root: false,
            home: "/home/user".into(),
            current_dir: "/home/user".into(),
            file,
            xdg_runtime_dir: Some("/run/user/1000".into()),
            xdg_state_home: None,
            runtime_directory: None,
            state_directory: None,
            user_temp_dir: None,
            find_user: |name| {
                let home = format!("/home/{name}");
                Ok(Some(RunAs { name: name.into(), uid: 1, gid: 1, groups: vec![1], home, shell: "/bin/sh".into() }))
            },
        }
    }

    /// The daemon's socket where the file names none.
    pub fn default_socket(&self) -> PathBuf {
        match first_absolute(&self.runtime_directory) {
            Some(given) => given.join("socket"),
            None if self.root && self.system == System::Linux => SYSTEM_SOCKET.into(),
            None => self.user_socket(),
        }
    }

    /// Where a client looks for a daemon, its own user's first.
    pub fn client_sockets(&self) -> Vec<PathBuf> {
        let system = (self.system == System::Linux).then(|| SYSTEM_SOCKET.into());
        let mut sockets: Vec<PathBuf> = [self.user_socket()].into_iter().chain(system).collect();
        if self.root {
            sockets.reverse();
        }
        sockets
    }

    /// A user without a runtime directory, as in a container, has the socket with the state.
    fn user_socket(&self) -> PathBuf {
        let dir = match self.system {
            System::Linux => first_absolute(&self.xdg_runtime_dir),
            System::MacOs => first_absolute(&self.user_temp_dir),
        };
        dir.map_or_else(|| self.user_state_dir().join("socket"), |dir| dir.join("backupnizza/socket"))
    }

    /// The state directory where the file names none.
    pub fn default_state_dir(&self) -> PathBuf {
        if let Some(given) = first_absolute(&self.state_directory) {
            return given;
        }
        match self.system {
            System::Linux if self.root => "/var/lib/backupnizza".into(),
            _ => self.user_state_dir(),
        }
    }

    fn user_state_dir(&self) -> PathBuf {
        match self.system {
            System::MacOs => self.home.join("Library/Application Support/backupnizza"),
            System::Linux => {
                let given = first_absolute(&self.xdg_state_home);
                given.unwrap_or_else(|| self.home.join(".local/state")).join("backupnizza")
            }
        }
    }

    /// `text` with `~` or `~/` at its head as the home directory of the daemon's user.
    pub fn expand(&self, text: &str) -> String {
        expand(text, &self.home.to_string_lossy())
    }
}

/// `text` with `~` or `~/` at its head as `home`.
pub fn expand(text: &str, home: &str) -> String {
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => [home.trim_end_matches('/'), rest].concat(),
        _ => text.to_string(),
    }
}

/// The first of a list with colons, as systemd gives it; a relative path counts as none, as the
/// XDG base directory specification wants it.
fn first_absolute(dirs: &Option<PathBuf>) -> Option<PathBuf> {
    let first = dirs.as_ref()?.to_str()?.split(':').next()?;
    first.starts_with('/').then(|| first.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn host() -> Host {
        Host::elsewhere("/etc/backup.yaml".into())
    }

    #[test]
    fn a_user_and_root_have_places_of_their_own_and_clients_try_both() {
        let user = host();
        assert_eq!(user.default_socket(), Path::new("/run/user/1000/backupnizza/socket"));
        assert_eq!(user.default_state_dir(), Path::new("/home/user/.local/state/backupnizza"));
        let both = ["/run/user/1000/backupnizza/socket", "/run/backupnizza/socket"].map(PathBuf::from);
        assert_eq!(user.client_sockets(), both);
        let root = Host { root: true, ..host() };
        assert_eq!(root.default_socket(), Path::new("/run/backupnizza/socket"));
        assert_eq!(root.default_state_dir(), Path::new("/var/lib/backupnizza"));
    }

    #[test]
    fn a_user_without_runtime_directory_has_the_socket_with_the_state() {
        let user = Host { xdg_runtime_dir: None, ..host() };
        assert_eq!(user.default_socket(), Path::new("/home/user/.local/state/backupnizza/socket"));
    }

    #[test]
    fn systemd_decides_where_it_has_made_directories() {
        let service = Host {
            root: true,
            runtime_directory: Some("/run/nightly:/run/other".into()),
            state_directory: Some("/var/lib/nightly".into()),
            ..host()
        };
        assert_eq!(service.default_socket(), Path::new("/run/nightly/socket"));
        assert_eq!(service.default_state_dir(), Path::new("/var/lib/nightly"));
    }

    #[test]
    fn macos_keeps_to_its_own_folders() {
        let mac = Host { system: System::MacOs, user_temp_dir: Some("/var/folders/ab/T/".into()), ..host() };
        assert_eq!(mac.default_socket(), Path::new("/var/folders/ab/T/backupnizza/socket"));
        assert_eq!(mac.default_state_dir(), Path::new("/home/user/Library/Application Support/backupnizza"));
    }

    #[test]
    fn a_tilde_is_the_home_directory_only_at_the_head() {
        for (text, expanded) in [
            ("~", "/home/user"),
            ("~/a", "/home/user/a"),
            ("~other/a", "~other/a"),
            ("a~/b", "a~/b"),
            ("--file=~/a", "--file=~/a"),
            ("$HOME", "$HOME"),
        ] {
            assert_eq!(host().expand(text), expanded);
        }
    }
}
