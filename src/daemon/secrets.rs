//! Who loads, renews and wipes the secrets while the daemon runs, so that these never mix: an
//! answer that was asked for before a wipe is thrown away, however late it comes.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{Report, available, guarded, locked, log_warning, spawn, tell_of_unavailable};
use crate::agenda::Event;
use crate::control::Reply;
use crate::control::listener::Client;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::log;
use crate::outcome::RunId;
use crate::plan::SecretId;
use crate::runner::Setting;
use crate::secret::Secret;
use crate::secretbox::NamedSecret;
use crate::source::Backoff;
use crate::startup::{self, Sources};

/// By then nobody has a secret any more that was wiped: a launcher has 10 s to take its frame, a
/// client 2 s to read an answer.
const WIPE_TIME: Duration = Duration::from_secs(15);

/// How often it is looked whether that is so.
const WIPE_PAUSE: Duration = Duration::from_millis(10);

pub struct Keeper {
    setting: Arc<Setting>,
    sources: Sources,
    /// Those that are asked for, in order.
    needed: Vec<SecretId>,
    ledger: Arc<Ledger>,
    reports: Sender<Report>,
    stop: Arc<AtomicBool>,
    /// Held while sources are asked: one after the other, as at start.
    asking: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often all secrets were wiped.
    wipes: u64,
    /// They are, until a `refresh`.
    is_locked: bool,
    /// What sources have given and nobody uses yet.
    answers: Vec<(SecretId, Secret)>,
    outdated: Vec<Outdated>,
}

/// A value that a `refresh` has replaced: kept out of output until all runs before `before` have ended.
struct Outdated {
    secret: NamedSecret,
    before: RunId,
}

impl Keeper {
    pub fn new(
        setting: Arc<Setting>,
        sources: Sources,
        ledger: Arc<Ledger>,
        reports: Sender<Report>,
        stop: Arc<AtomicBool>,
    ) -> Keeper {
        let needed = setting.plan.needed_secrets();
        Keeper { setting, sources, needed, ledger, reports, stop, asking: Mutex::default(), state: Mutex::default() }
    }

    /// Whether it is asked for; one that only disabled tasks use is not.
    pub fn is_needed(&self, id: SecretId) -> bool {
        self.needed.binary_search(&id).is_ok()
    }

    pub fn is_locked(&self) -> bool {
        locked(&self.state).is_locked
    }

    /// Asks for what is missing until all of it is there, with growing pauses.
    pub fn ask_again(self: &Arc<Self>, mut missing: Vec<SecretId>) {
        if missing.is_empty() {
            return;
        }
        let keeper = self.clone();
        spawn("sources", move || {
            guarded("sources", || {
                let mut backoff = Backoff::new();
                while !missing.is_empty() && !keeper.stop.load(Ordering::Relaxed) {
                    thread::sleep(backoff.after_failure());
                    if !keeper.ask_for_missing(&mut missing) {
                        return;
                    }
                }
            });
        });
    }

    /// Asks once for what of `missing` still is, and leaves there what is even then. False: it is no longer wanted.
    fn ask_for_missing(&self, missing: &mut Vec<SecretId>) -> bool {
        let _turn = locked(&self.asking);
        // While it waited for its turn, a `refresh` may have asked, and a `lock` have come.
        let Some(wipes) = self.wipes_unless_locked() else { return false };
        missing.retain(|id| self.setting.secretbox.secret(*id).is_none());
        let asked = self.sources.ask_for(&self.setting, missing, &self.stop, |id, secret| self.take(wipes, id, secret));
        asked.warnings.iter().chain(&asked.wrong).for_each(log_warning);
        asked.unavailable.iter().for_each(|(_, error)| tell_of_unavailable(error));
        let wanted = self.swap(wipes).unwrap_or_else(|error| {
            log_warning(&error);
            true
        });
        missing.retain(|id| self.setting.secretbox.secret(*id).is_none());
        wanted
    }

    fn wipes_unless_locked(&self) -> Option<u64> {
        let state = locked(&self.state);
        (!state.is_locked).then_some(state.wipes)
    }

    fn take(&self, wipes: u64, id: SecretId, secret: Secret) {
        let mut state = locked(&self.state);
        if state.wipes == wipes {
            state.answers.push((id, secret));
        }
    }

    /// Puts all answers in place of what was there. False: they were wiped before anybody used them.
    fn swap(&self, wipes: u64) -> Result<bool, Error> {
        let mut state = locked(&self.state);
        if state.wipes != wipes {
            return Ok(false);
        }
        let plan = &self.setting.plan;
        let answers = mem::take(&mut state.answers).into_iter().map(|(id, secret)| (id, Arc::new(secret)));
        let answers: Vec<(SecretId, Arc<Secret>)> = answers.collect();
        let new = answers.iter().map(|(id, secret)| (plan.secret(*id).name.as_str().into(), secret.clone()));
        // Before anybody can have them, and so print them.
        self.setting.renew_redaction(new.chain(state.outdated.iter().map(|old| old.secret.clone())).collect())?;
        let old: Vec<NamedSecret> =
            answers.into_iter().filter_map(|(id, secret)| self.setting.secretbox.load(id, secret)).collect();
        let before = RunId(self.ledger.state().next_run);
        state.outdated.extend(old.into_iter().map(|secret| Outdated { secret, before }));
        state.is_locked = false;
        // All is exchanged by now, so this may fail: what is looked for already includes all of it.
        let _ = self.renew_redaction(&state).inspect_err(log_warning);
        drop(state);
        self.tell();
        Ok(true)
    }

    fn renew_redaction(&self, state: &State) -> Result<(), Error> {
        self.setting.renew_redaction(state.outdated.iter().map(|old| old.secret.clone()).collect())
    }

    fn tell(&self) {
        let _ = self.reports.send(Report::Agenda(Event::SecretsAvailable(available(&self.setting))));
    }

    /// Whether values that a `refresh` has replaced are still kept out of output.
    pub fn has_replaced_any(&self) -> bool {
        !locked(&self.state).outdated.is_empty()
    }

    /// All runs before `oldest` have ended (`None`: all runs): forgets the values that only they knew.
    pub fn let_go(&self, oldest: Option<RunId>) {
        let mut state = locked(&self.state);
        let before = state.outdated.len();
        state.outdated.retain(|old| oldest.is_some_and(|oldest| oldest < old.before));
        if state.outdated.len() < before
            && let Err(error) = self.renew_redaction(&state)
        {
            log_warning(&error);
        }
    }

    /// Wipes all secrets at once; answers when nobody has them any more.
    pub fn lock(&self, client: Client) {
        let mut state = locked(&self.state);
        state.wipes += 1;
        state.is_locked = true;
        let outdated = mem::take(&mut state.outdated);
        let mut wiped: Vec<Weak<Secret>> = outdated.iter().map(|old| Arc::downgrade(&old.secret.1)).collect();
        state.answers.clear();
        drop(outdated);
        wiped.extend(self.setting.secretbox.wipe());
        self.setting.redaction.wipe();
        self.sources.wipe();
        drop(state);
        log::warn("all secrets are wiped; runs that need one wait for a refresh", &[]);
        self.tell();
        let asked = client.clone();
        if !spawn("lock", move || guarded("lock", || await_wiped(&wiped, &client)).unwrap_or_default()) {
            let error = Error::new("lock", "all secrets are wiped, but nobody can watch whether one is still in use");
            asked.send(&Reply::Failed(error.hint("stop the daemon to be sure that they are gone")));
        }
    }

    /// Asks all sources again and looks at the programs again; answers when that is done.
    pub fn refresh(self: &Arc<Self>, client: Client) {
        let (keeper, asked) = (self.clone(), client.clone());
        let failed = || {
            Reply::Failed(Error::new("refresh", "nothing was exchanged").hint("mend what was told above, then again"))
        };
        let spawned = spawn("refresh", move || {
            let renewed = guarded("refresh", || keeper.renew(&client)).unwrap_or(false);
            client.send(&if renewed { Reply::Done } else { failed() });
        });
        if !spawned {
            asked.send(&Reply::Note("no thread can be started".to_owned()));
            asked.send(&failed());
        }
    }

    fn renew(&self, client: &Client) -> bool {
        let tell = |error: &Error| {
            log_warning(error);
            let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            client.send(&Reply::Note(format!("{error}{hint}")));
        };
        let _turn = locked(&self.asking);
        let path_variable = self.setting.inherited.path();
        match self.setting.programs.look_again(&self.setting.plan, path_variable, &self.setting.client) {
            Ok(warnings) => warnings.into_iter().for_each(|warning| tell(&startup::warning_text(warning))),
            Err(problems) => {
                problems.iter().for_each(tell);
                return false;
            }
        }
        let wipes = locked(&self.state).wipes;
        let asked =
            self.sources.ask_for(&self.setting, &self.needed, &self.stop, |id, secret| self.take(wipes, id, secret));
        asked.warnings.iter().for_each(tell);
        let problems = asked.wrong.iter().chain(asked.unavailable.iter().map(|(_, error)| error));
        if problems.inspect(|error| tell(error)).count() > 0 {
            locked(&self.state).answers.clear();
            return false;
        }
        match self.swap(wipes) {
            Ok(true) => {
                log::info("all secrets and programs are renewed", &[("secrets", &self.needed.len())]);
                true
            }
            Ok(false) => {
                tell(&Error::new("refresh", "all secrets were wiped meanwhile"));
                false
            }
            Err(error) => {
                tell(&error);
                false
            }
        }
    }
}

fn await_wiped(wiped: &[Weak<Secret>], client: &Client) {
    let until = Instant::now() + WIPE_TIME;
    while wiped.iter().any(|secret| secret.strong_count() > 0) {
        if Instant::now() >= until {
            log::error("a wiped secret is still in use", &[]);
            let error = Error::new("lock", "a secret is still in use");
            return client.send(&Reply::Failed(error.hint("stop the daemon to be sure that it is gone")));
        }
        thread::sleep(WIPE_PAUSE);
    }
    client.send(&Reply::Done);
}
