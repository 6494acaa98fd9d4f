//! What a command is given: its environment in parts, and secrets by descriptor.
//!
//! Secrets and tokens stay in protected memory; a variable that holds one is kept as what comes
//! before it, the protected bytes, and what comes after.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use super::Setting;
use super::command::Context;
use super::pump::{Channel, Outgoing};
use crate::error::Error;
use crate::launch;
use crate::log;
use crate::plan::{SecretId, Step, Value, Wrap};
use crate::program::Program;
use crate::secret::Secret;
use crate::secretbox::{Grant, Holder, Token};
use crate::sys;

/// What a command is given by descriptor.
#[derive(Default)]
pub struct Channels {
    /// The command's own end, if a secret arrives on its standard input.
    pub stdin: Option<OwnedFd>,
    /// The command's own ends, in order of their numbers.
    pub files: Vec<PipeReader>,
    /// The daemon's ends.
    pub outgoing: Vec<Outgoing>,
}

impl Channels {
    pub fn open(setting: &Setting, step: &Step, context: &Context) -> Result<Channels, Error> {
        let failed = |error: io::Error| Error::new("pipe", error);
        let mut channels = Channels::default();
        if let Some(id) = step.stdin {
            let secret = loaded(setting, id)?;
            let ours = channels.open_stdin().map_err(failed)?;
            channels.outgoing.push(Outgoing::secret(ours, Wrap::default(), secret).map_err(failed)?);
        } else if let Some(text) = &context.stdin {
            let ours = channels.open_stdin().map_err(failed)?;
            channels.outgoing.push(Outgoing::text(ours, text.clone()).map_err(failed)?);
        }
        for (_, value) in step.environment.iter() {
            if let Value::File { secret, wrap } = value {
                let secret = loaded(setting, *secret)?;
                let (theirs, ours) = io::pipe().map_err(failed)?;
                channels.files.push(theirs);
                channels.outgoing.push(Outgoing::secret(Channel::Pipe(ours), wrap.clone(), secret).map_err(failed)?);
            }
        }
        Ok(channels)
    }

    /// A socket pair: unlike a pipe, nobody else can open it through /proc.
    fn open_stdin(&mut self) -> io::Result<Channel> {
        let (ours, theirs) = UnixStream::pair()?;
        self.stdin = Some(theirs.into());
        Ok(Channel::Socket(ours))
    }
}

/// All variables of a command; its tokens are made for `session`, which it will lead.
pub fn environment(setting: &Setting, step: &Step, context: &Context, session: i32) -> Result<Vec<Variable>, Error> {
    let is_own = |name: &std::ffi::OsStr| step.environment.iter().any(|(own, _)| name == own.as_str());
    let user = step.user.as_deref();
    let passed = setting.inherited.passed(&step.pass_environment, user).filter(|(name, _)| !is_own(name));
    let mut variables: Vec<Variable> =
        passed.map(|(name, value)| Variable::text(name.as_bytes(), value.as_bytes())).collect();
    let mut files = launch::FIRST_FILE..;
    for (name, value) in step.environment.iter() {
        variables.push(match value {
            Value::Text(text) => Variable::text(name.as_bytes(), text.as_bytes()),
            Value::Token { secret, uses, max_ttl } => {
                let client = client(setting, context)?;
                let ttl = max_ttl.unwrap_or(setting.plan.secretbox.max_token_ttl);
                let grant = Grant {
                    secret: *secret,
                    session,
                    uid: user.map_or_else(sys::effective_uid, |user| user.uid),
                    uses: *uses,
                    expires: sys::boot_clock() + ttl,
                    holder: Holder { task: context.task.clone(), run: context.run.0, step: context.step.clone() },
                };
                let token = setting.secretbox.issue(grant).map_err(|error| Error::new("token", error))?;
                Variable::command(name, client.path(), token)
            }
            Value::File { .. } => {
                let path = format!("/dev/fd/{}", files.next().unwrap_or_default());
                Variable::text(name.as_bytes(), path.as_bytes())
            }
            Value::Plain { secret, wrap } => {
                Variable::plain(name, wrap, loaded(setting, *secret)?).ok_or_else(|| unfit(setting, *secret, name))?
            }
        });
    }
    variables.extend(run_variables(setting, context));
    Ok(variables)
}

/// This program, to which a command will show its token: if somebody exchanged it, no token is made.
fn client(setting: &Setting, context: &Context) -> Result<Arc<Program>, Error> {
    let (client, notices) = setting.programs.check_client()?;
    for notice in notices {
        log::warn(&notice.what, &[("program", &notice.object), ("task", &context.task)]);
    }
    Ok(client)
}

fn unfit(setting: &Setting, secret: SecretId, variable: &str) -> Error {
    let name = &setting.plan.secret(secret).name;
    Error::new(format!("secret {name}"), format!("has a zero byte, which the variable {variable} cannot hold"))
        .hint("give it `as: file` or through `stdin`")
}

fn loaded(setting: &Setting, id: SecretId) -> Result<Arc<Secret>, Error> {
    let name = || format!("secret {}", setting.plan.secret(id).name);
    setting.secretbox.secret(id).ok_or_else(|| Error::new(name(), "is not loaded"))
}

/// What every command is told of its run.
fn run_variables(setting: &Setting, context: &Context) -> Vec<Variable> {
    let run = context.run.to_string();
    let known: [(&str, &[u8]); 5] = [
        ("BACKUPNIZZA_TASK", context.task.as_bytes()),
        ("BACKUPNIZZA_STEP", context.step.as_bytes()),
        ("BACKUPNIZZA_RUN", run.as_bytes()),
        ("BACKUPNIZZA_SLOT", context.slot.as_bytes()),
        ("BACKUPNIZZA_SOCKET", setting.socket.as_os_str().as_bytes()),
    ];
    let further = context.variables.iter().map(|(name, value)| (*name, value.as_bytes()));
    known.into_iter().chain(further).map(|(name, value)| Variable::text(name.as_bytes(), value)).collect()
}

/// One variable as `NAME=value`, in parts, so that a secret stays where it is.
pub struct Variable {
    before: Vec<u8>,
    hidden: Hidden,
    after: Vec<u8>,
}

enum Hidden {
    Nothing,
    Token(Token),
    Secret(Arc<Secret>),
}

impl Variable {
    fn text(name: &[u8], value: &[u8]) -> Variable {
        Variable { before: [name, b"=", value].concat(), hidden: Hidden::Nothing, after: Vec::new() }
    }

    /// `"/absolute/path/backupnizza" secretbox TOKEN`: read alike by restic's splitting, by
    /// rclone's (one CSV record separated by single spaces) and by a shell's.
    fn command(name: &str, client: &Path, token: Token) -> Variable {
        let before = [name.as_bytes(), b"=\"", client.as_os_str().as_bytes(), b"\" secretbox "].concat();
        Variable { before, hidden: Hidden::Token(token), after: Vec::new() }
    }

    /// `None` if the secret has a zero byte.
    fn plain(name: &str, wrap: &Wrap, secret: Arc<Secret>) -> Option<Variable> {
        let before = [name.as_bytes(), b"=", wrap.prefix.as_bytes()].concat();
        let fits = !secret.expose().contains(&0);
        fits.then(|| Variable { before, hidden: Hidden::Secret(secret), after: wrap.suffix.clone().into_bytes() })
    }

    pub fn parts(&self) -> Vec<&[u8]> {
        let hidden = match &self.hidden {
            Hidden::Nothing => &[][..],
            Hidden::Token(token) => token.text(),
            Hidden::Secret(secret) => secret.expose(),
        };
        vec![&self.before, hidden, &self.after]
    }
}
