//! Session tickets: what a client resumes a session with, sealed with keys that are rotated and then forgotten.
//!
//! The keys are the process's: all workers have the same, and they outlive reloads. Policies that ask for client
//! certificates have keys of their own, because a ticket opens what it was made for, and no longer than the client's
//! certificate is good.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a key seals new tickets, as in Caddy.
pub const ROTATION: Duration = Duration::from_hours(12);
/// How many keys open tickets, as in Caddy.
pub const KEYS: usize = 4;
/// RFC 8446 section 4.6.1: no ticket is good for longer.
const LONGEST_LIFE: Duration = Duration::from_hours(7 * 24);
const NAME: usize = 16;

/// `session_tickets` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSettings {
    pub disabled: bool,
    pub rotation: Duration,
    /// The newest seals; all open. At least one.
    pub keys: usize,
}

impl Default for TicketSettings {
    fn default() -> Self {
        Self { disabled: false, rotation: ROTATION, keys: KEYS }
    }
}

/// The keys of one scope.
pub struct Tickets {
    state: RwLock<State>,
}

struct State {
    settings: TicketSettings,
    /// Newest first.
    keys: VecDeque<Key>,
    made: Instant,
}

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Tickets {
    /// The keys of a scope, which everything of this process with that scope shares; they stay while anything uses
    /// them, and go by the settings given last.
    pub fn shared(scope: [u8; 32], settings: &TicketSettings) -> Result<Arc<Self>, rustls::Error> {
        static SCOPES: LazyLock<Mutex<HashMap<[u8; 32], Weak<Tickets>>>> = LazyLock::new(Mutex::default);
        let mut scopes = SCOPES.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.retain(|_, tickets| tickets.strong_count() > 0);
        if let Some(found) = scopes.get(&scope).and_then(Weak::upgrade) {
            found.state.write().unwrap_or_else(PoisonError::into_inner).settings = settings.clone();
            return Ok(found);
        }
        let made = Arc::new(Self::new(settings, Instant::now())?);
        scopes.insert(scope, Arc::downgrade(&made));
        Ok(made)
    }

    fn new(settings: &TicketSettings, now: Instant) -> Result<Self, rustls::Error> {
        let keys = VecDeque::from([Key::new()?]);
        Ok(Self { state: RwLock::new(State { settings: settings.clone(), keys, made: now }) })
    }

    fn encrypt_at(&self, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if !state.is_due(now) {
            return state.keys.front()?.seal(plain);
        }
        drop(state);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.rotate(now);
        state.keys.front()?.seal(plain)
    }

    fn decrypt_at(&self, sealed: &[u8], now: Instant) -> Option<Vec<u8>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        // Nothing was sealed for a while: keys that should be gone by now do not open.
        let late = now.saturating_duration_since(state.made).as_nanos() / state.settings.rotation.as_nanos().max(1);
        let usable = state.settings.keys.saturating_sub(usize::try_from(late).unwrap_or(usize::MAX));
        let name = sealed.get(..NAME)?;
        state.keys.iter().take(usable).find(|key| key.name == name)?.open(sealed)
    }
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) >= self.settings.rotation
    }

    fn rotate(&mut self, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        let late = now.saturating_duration_since(self.made).as_nanos() / self.settings.rotation.as_nanos().max(1);
        let usable = self.settings.keys.saturating_sub(usize::try_from(late).unwrap_or(usize::MAX));
        self.keys.truncate(usable);
        // Without randomness the old key goes on: better than none.
        if let Ok(key) = Key::new() {
            self.keys.push_front(key);
            self.made = now;
        }
        self.keys.truncate(self.settings.keys.max(1));
    }
}

impl Key {
    fn new() -> Result<Self, rustls::Error> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        let mut name = [0; NAME];
        let filled = getrandom::fill(secret.as_mut_slice()).and_then(|()| getrandom::fill(&mut name));
        filled.map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, secret.as_slice())
            .map_err(|_| rustls::Error::General("a key for session tickets cannot be made".into()))?;
        Ok(Self { name, key })
    }

    /// Name, nonce, ciphertext with its tag.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(&self.name), &mut sealed).ok()?;
        let mut out = Vec::with_capacity(NAME + NONCE_LEN + sealed.len());
        out.extend_from_slice(&self.name);
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&sealed);
        Some(out)
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.get(NAME..)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(&self.name), &mut sealed).ok()?.len();
        sealed.truncate(plain);
        Some(sealed)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let keys = u32::try_from(state.settings.keys).unwrap_or(u32::MAX);
        let life = state.settings.rotation.saturating_mul(keys).min(LONGEST_LIFE);
        u32::try_from(life.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(cipher, Instant::now()).filter(|session| shows_no_expired(session, UnixTime::now()))
    }
}

/// Whether the client's certificate in a session, if there is one, has not expired, as in Go. rustls does not look, and
/// each resumption gives a new ticket: who goes on resuming would never be asked for a good certificate again. What
/// cannot be read is not resumed.
fn shows_no_expired(session: &[u8], now: UnixTime) -> bool {
    match client_certificate(session) {
        Some(None) => true,
        Some(Some(der)) => X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
            i64::try_from(now.as_secs()).is_ok_and(|now| now <= certificate.validity().not_after.timestamp())
        }),
        None => false,
    }
}

/// The client's certificate in a session as rustls writes it: server name (may be missing), version, cipher suite, secret,
/// a flag, then the chain (may be missing). `None` when it is not written so.
#[allow(clippy::option_option)] // unreadable, none, or one
fn client_certificate(session: &[u8]) -> Option<Option<&[u8]>> {
    let byte = |rest: &[u8]| Some(usize::from(*rest.first()?));
    let mut rest = session;
    if byte(rest)? == 1 {
        rest = rest.get(2 + byte(rest.get(1..)?)?..)?;
    } else {
        rest = rest.get(1..)?;
    }
    rest = rest.get(4..)?;
    rest = rest.get(1 + byte(rest)? + 1..)?;
    match byte(rest)? {
        0 => Some(None),
        1 => {
            // Length of the chain, then length of its first certificate, 24 bits each.
            let [a, b, c] = *rest.get(4..7)? else { return None };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            rest.get(7..7 + length).map(Some)
        }
        _ => None,
    }
}

/// Without the keys.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_ticket_opens_until_its_key_is_forgotten() {
        let settings = TicketSettings { rotation: HOUR, keys: 3, ..TicketSettings::default() };
        let began = Instant::now();
        let tickets = Tickets::new(&settings, began).unwrap();
        let ticket = tickets.encrypt_at(b"session", began).unwrap();
        for hours in 0..3 {
            let now = began + HOUR * hours;
            assert_eq!(tickets.decrypt_at(&ticket, now).as_deref(), Some(&b"session"[..]), "{hours}");
            assert!(tickets.encrypt_at(b"other", now).is_some());
        }
        let now = began + HOUR * 3;
        assert_eq!(tickets.decrypt_at(&ticket, now), None, "also when nothing was sealed since");
        tickets.encrypt_at(b"other", now).unwrap();
        assert_eq!(tickets.decrypt_at(&ticket, now), None);
        assert!(tickets.state.read().unwrap().keys.len() <= 3);
    }

    #[test]
    fn a_long_silence_forgets_all_keys() {
        let settings = TicketSettings { rotation: HOUR, keys: 3, ..TicketSettings::default() };
        let began = Instant::now();
        let tickets = Tickets::new(&settings, began).unwrap();
        let ticket = tickets.encrypt_at(b"session", began).unwrap();
        tickets.encrypt_at(b"other", began + HOUR * 50).unwrap();
        assert_eq!(tickets.state.read().unwrap().keys.len(), 1);
        assert_eq!(tickets.decrypt_at(&ticket, began + HOUR * 50), None);
    }

    #[test]
    fn what_was_changed_on_the_way_does_not_open() {
        let tickets = Tickets::new(&TicketSettings::default(), Instant::now()).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at}");
        }
        assert_ne!(tickets.encrypt(b"session").unwrap(), ticket);
    }

    #[test]
    fn a_scope_has_its_own_keys_and_keeps_them() {
        let settings = TicketSettings::default();
        let (one, other) = (Tickets::shared([1; 32], &settings).unwrap(), Tickets::shared([2; 32], &settings).unwrap());
        // As rustls writes one of a client without certificate.
        let session = [0, 3, 4, 0x13, 1, 1, 9, 1, 0];
        let ticket = one.encrypt(&session).unwrap();
        assert_eq!(other.decrypt(&ticket), None);
        let again = Tickets::shared([1; 32], &settings).unwrap();
        assert_eq!(again.decrypt(&ticket).as_deref(), Some(&session[..]));
    }

    #[test]
    fn a_session_ends_with_the_certificate_that_the_client_showed() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let length = |n: usize| u32::try_from(n).unwrap().to_be_bytes()[1..].to_vec();
        for name in [&[0][..], &[1, 1, b'a']] {
            let head = [name, &[3, 4, 0x13, 1, 2, 9, 9, 1]].concat();
            assert!(shows_no_expired(&[&head[..], &[0, 0]].concat(), at(u64::MAX / 4)), "no certificate");
            let shown = [&head[..], &[1], &length(der.len() + 3), &length(der.len()), &der, &[0]].concat();
            assert!(shows_no_expired(&shown, at(1_800_000_000)));
            assert!(!shows_no_expired(&shown, at(1_800_000_001)));
            for end in 0..shown.len() - 1 {
                assert!(!shows_no_expired(&shown[..end], at(0)), "{end}");
            }
        }
    }
}
