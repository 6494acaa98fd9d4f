//! The secrets that are loaded, and the tokens by which steps may ask for them.
//!
//! A token stands for one secret and for one session: the one that its step leads. Whoever
//! knows a token but lives elsewhere gets nothing.

pub mod client;
pub mod listener;
mod token;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::plan::SecretId;
use crate::secret::Secret;
use crate::sys::Arena;

use token::Mark;
pub use token::{Token, TokenError};

/// One daemon's secrets and live tokens.
pub struct Secretbox {
    arena: &'static Arena,
    secrets: RwLock<Vec<Loaded>>,
    tokens: Mutex<Tokens>,
}

/// A secret's value under its name.
pub type NamedSecret = (Arc<str>, Arc<Secret>);

/// A secret's name and, once its source has given it, its value.
struct Loaded {
    name: Arc<str>,
    value: Option<Arc<Secret>>,
}

#[derive(Default)]
struct Tokens {
    grants: HashMap<Mark, Grant>,
    /// The tokens of each live session, so that a stranger is known before it has said a word
    /// and a step's tokens die together.
    sessions: HashMap<i32, Session>,
    counts: Counts,
    warnings: Quota,
}

/// How many refusals are logged in a stretch of `QUOTA_TIME`.
const QUOTA: u32 = 20;
const QUOTA_TIME: Duration = Duration::from_secs(10);

/// Keeps repeated warnings within bounds.
#[derive(Default)]
struct Quota {
    since: Duration,
    used: u32,
    suppressed: u64,
}

impl Quota {
    /// Whether one more may be given; with it how many were not.
    fn allow(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.since) >= QUOTA_TIME {
            (self.since, self.used) = (now, 0);
        }
        if self.used == QUOTA {
            self.suppressed += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

struct Session {
    uid: u32,
    marks: Vec<Mark>,
}

/// Which step a token was made for; what the log says of it.
#[derive(Debug, Clone)]
pub struct Holder {
    pub task: Arc<str>,
    pub run: u64,
    pub step: Arc<str>,
}

/// What a token permits.
#[derive(Debug, Clone)]
pub struct Grant {
    pub secret: SecretId,
    /// The session that the step leads, and its user.
    pub session: i32,
    pub uid: u32,
    pub uses: u32,
    /// On the boot clock, which counts a suspend.
    pub expires: Duration,
    pub holder: Holder,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub session: i32,
    pub uid: u32,
}

/// A secret handed out, and to which step.
pub struct Redeemed {
    pub secret: Arc<Secret>,
    pub name: Arc<str>,
    pub holder: Holder,
}

/// Why a token was not redeemed: for the log and the metrics, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No step of this session or user has a token.
    Outsider,
    /// Not a request.
    Malformed,
    OtherVersion,
    /// No live token reads like this.
    Unknown,
    /// It belongs to another session or user.
    OtherSession,
    Spent,
    Expired,
    /// The secret is not loaded (any more).
    NotLoaded,
    /// The peer was gone by the time that it had asked.
    Gone,
    TooSlow,
    /// It said nothing while others waited.
    Silent,
}

/// How many tokens were made, redeemed, and refused by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub issued: u64,
    pub redeemed: u64,
    pub refused: BTreeMap<&'static str, u64>,
}

impl Refusal {
    /// In one word, for counting.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Outsider => "outsider",
            Refusal::Malformed => "malformed",
            Refusal::OtherVersion => "version",
            Refusal::Unknown => "unknown",
            Refusal::OtherSession => "session",
            Refusal::Spent => "spent",
            Refusal::Expired => "expired",
            Refusal::NotLoaded => "not_loaded",
            Refusal::Gone => "gone",
            Refusal::TooSlow => "slow",
            Refusal::Silent => "silent",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Outsider => {
                "the peer is outside of every step's session that has a token; `stdin` gives a secret there"
            }
            Refusal::Malformed => "not a token",
            Refusal::OtherVersion => "the client speaks another version; restart the daemon after an upgrade",
            Refusal::Unknown => "no such token",
            Refusal::OtherSession => "the token belongs to another session",
            Refusal::Spent => "the token is spent",
            Refusal::Expired => "the token has expired",
            Refusal::NotLoaded => "the secret is not loaded",
            Refusal::Gone => "the peer is gone",
            Refusal::TooSlow => "the request took too long",
            Refusal::Silent => "the peer said nothing while others waited",
        }
    }
}

impl Secretbox {
    /// An empty box for secrets of these names, in the order of the plan's ids.
    pub fn new<'a>(arena: &'static Arena, names: impl Iterator<Item = &'a str>) -> Secretbox {
        let secrets = names.map(|name| Loaded { name: name.into(), value: None }).collect();
        Secretbox { arena, secrets: RwLock::new(secrets), tokens: Mutex::default() }
    }

    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    /// Takes in a secret's value; returns the one that it had before.
    pub fn load(&self, id: SecretId, secret: Arc<Secret>) -> Option<NamedSecret> {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        let loaded = &mut secrets[id.index()];
        Some((loaded.name.clone(), loaded.value.replace(secret)?))
    }

    /// Forgets all values. What is returned tells when nobody else has them any more either.
    pub fn wipe(&self) -> Vec<Weak<Secret>> {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.iter_mut().filter_map(|loaded| loaded.value.take()).map(|secret| Arc::downgrade(&secret)).collect()
    }

    /// A secret's value, `None` while it is not loaded.
    pub fn secret(&self, id: SecretId) -> Option<Arc<Secret>> {
        self.named_secret(id).map(|(_, secret)| secret)
    }

    /// A secret's name and value, `None` while it is not loaded.
    pub fn named_secret(&self, id: SecretId) -> Option<NamedSecret> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let loaded = &secrets[id.index()];
        Some((loaded.name.clone(), loaded.value.clone()?))
    }

    /// Makes a token for `grant`; it lives until it is spent, expires, or its session is revoked.
    pub fn issue(&self, grant: Grant) -> Result<Token, TokenError> {
        let token = Token::draw(self.arena)?;
        let mut tokens = self.tokens();
        let session = tokens.sessions.entry(grant.session);
        session.or_insert_with(|| Session { uid: grant.uid, marks: Vec::new() }).marks.push(token.mark());
        tokens.grants.insert(token.mark(), grant);
        tokens.counts.issued += 1;
        Ok(token)
    }

    /// Ends all tokens of the step that leads `session`. To be called before its process is
    /// reaped, so that no token outlives the session's number.
    pub fn revoke(&self, session: i32) {
        let mut tokens = self.tokens();
        let marks = tokens.sessions.remove(&session).map_or(Vec::new(), |session| session.marks);
        for mark in marks {
            tokens.grants.remove(&mark);
        }
    }

    /// Whether `caller` may speak at all: some live token was made for its session and user.
    pub fn admits(&self, caller: Caller) -> bool {
        self.tokens().sessions.get(&caller.session).is_some_and(|session| session.uid == caller.uid)
    }

    /// Redeems the token that reads `text`, at `now` on the boot clock.
    pub fn redeem(&self, text: &[u8], caller: Caller, now: Duration) -> Result<Redeemed, Refusal> {
        let mark = Mark::of(text);
        let mut tokens = self.tokens();
        let grant = tokens.grants.get_mut(&mark).ok_or(Refusal::Unknown)?;
        if grant.session != caller.session || grant.uid != caller.uid {
            return Err(Refusal::OtherSession);
        }
        if grant.uses == 0 {
            return Err(Refusal::Spent);
        }
        if now >= grant.expires {
            return Err(Refusal::Expired);
        }
        let (name, secret) = self.named_secret(grant.secret).ok_or(Refusal::NotLoaded)?;
        grant.uses -= 1;
        let holder = grant.holder.clone();
        tokens.counts.redeemed += 1;
        Ok(Redeemed { secret, name, holder })
    }

    /// A refusal was given. Says whether to log it, and how many before it were not: whoever knocks
    /// without end must not fill the disk.
    fn count(&self, refusal: Refusal, now: Duration) -> Option<u64> {
        let mut tokens = self.tokens();
        *tokens.counts.refused.entry(refusal.name()).or_default() += 1;
        tokens.warnings.allow(now)
    }

    pub fn counts(&self) -> Counts {
        self.tokens().counts.clone()
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        // Each change is made in one piece, so a panic elsewhere leaves nothing half done.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Protection, protect, read_value};

    const CALLER: Caller = Caller { session: 7, uid: 1000 };
    const START: Duration = Duration::from_secs(100);

    fn secretbox() -> Secretbox {
        let arena = protect(Protection::Locked).expect("locked memory").arena;
        let secretbox = Secretbox::new(arena, ["vault"].into_iter());
        let value = read_value(arena, &mut &b"correct horse"[..]).expect("a value");
        secretbox.load(SecretId::first(), Arc::new(value));
        secretbox
    }

    fn grant(uses: u32) -> Grant {
        Grant {
            secret: SecretId::first(),
            session: CALLER.session,
            uid: CALLER.uid,
            uses,
            expires: START + Duration::from_secs(10),
            holder: Holder { task: "documents".into(), run: 1, step: "restic".into() },
        }
    }

    fn outcome(secretbox: &Secretbox, token: &Token, caller: Caller, now: Duration) -> Result<Vec<u8>, Refusal> {
        secretbox.redeem(token.text(), caller, now).map(|redeemed| redeemed.secret.expose().to_vec())
    }

    #[test]
    fn a_token_gives_its_secret_as_often_as_it_may_be_used() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(2)).expect("a token");
        for _ in 0..2 {
            assert_eq!(outcome(&secretbox, &token, CALLER, START), Ok(b"correct horse".to_vec()));
        }
        assert_eq!(outcome(&secretbox, &token, CALLER, START), Err(Refusal::Spent));
    }

    #[test]
    fn a_token_is_dead_at_its_time() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(1)).expect("a token");
        assert_eq!(outcome(&secretbox, &token, CALLER, START + Duration::from_secs(10)), Err(Refusal::Expired));
    }

    #[test]
    fn another_session_or_user_gets_nothing_and_spends_nothing() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(1)).expect("a token");
        for caller in [Caller { session: 8, ..CALLER }, Caller { uid: 0, ..CALLER }] {
            assert!(!secretbox.admits(caller));
            assert_eq!(outcome(&secretbox, &token, caller, START), Err(Refusal::OtherSession));
        }
        assert!(outcome(&secretbox, &token, CALLER, START).is_ok());
    }

    #[test]
    fn the_tokens_of_a_step_die_with_it() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(1)).expect("a token");
        assert!(secretbox.admits(CALLER));
        secretbox.revoke(CALLER.session);
        assert!(!secretbox.admits(CALLER));
        assert_eq!(outcome(&secretbox, &token, CALLER, START), Err(Refusal::Unknown));
    }

    #[test]
    fn what_is_wiped_is_refused_and_gone() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(1)).expect("a token");
        let wiped = secretbox.wipe();
        assert_eq!(outcome(&secretbox, &token, CALLER, START), Err(Refusal::NotLoaded));
        assert!(wiped.len() == 1 && wiped[0].strong_count() == 0);
    }

    #[test]
    fn a_flood_of_refusals_is_logged_within_bounds_and_counted() {
        let secretbox = secretbox();
        let said = (0..1000).filter(|_| secretbox.count(Refusal::Outsider, START).is_some()).count();
        assert_eq!(said, QUOTA as usize);
        assert_eq!(secretbox.count(Refusal::Outsider, START + QUOTA_TIME), Some(1000 - u64::from(QUOTA)));
        assert_eq!(secretbox.counts().refused["outsider"], 1001);
    }

    #[test]
    fn tokens_are_64_hexadecimal_digits_and_never_alike() {
        let secretbox = secretbox();
        let token = secretbox.issue(grant(1)).expect("a token");
        let other = secretbox.issue(grant(1)).expect("a token");
        assert_eq!(token.text().len(), 64);
        assert!(token.text().iter().all(u8::is_ascii_hexdigit));
        assert_ne!(token.text(), other.text());
    }
}
