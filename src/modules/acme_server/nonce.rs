//! Nonces: each is good for one request (RFC 8555 section 6.5), and none costs memory before it is used.
//!
//! A nonce is a counter with a MAC; a window of bits tells which of the latest were used. Who asks for very many makes
//! older ones void, which costs their holders one retry.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How many of the latest nonces are good.
const WINDOW: u64 = 1 << 16;
const MAC: usize = 16;

pub struct Nonces {
    key: hmac::Key,
    used: Mutex<Used>,
}

struct Used {
    next: u64,
    /// One bit a nonce, by its counter modulo the window; set when it is used.
    bits: Box<[u64]>,
}

impl Nonces {
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let bits = vec![0; usize::try_from(WINDOW / 64).unwrap_or(1024)].into_boxed_slice();
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), used: Mutex::new(Used { next: 0, bits }) })
    }

    pub fn issue(&self) -> String {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = used.next;
        used.next += 1;
        *used.bit(counter).0 &= !used_mask(counter);
        drop(used);
        let mut nonce = counter.to_be_bytes().to_vec();
        nonce.extend_from_slice(&self.mac(counter).as_ref()[..MAC]);
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// Whether the nonce is ours and new; it is used then.
    pub fn take(&self, nonce: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((counter, mac)) = bytes.split_first_chunk::<8>() else { return false };
        let counter = u64::from_be_bytes(*counter);
        let own = self.mac(counter);
        if mac.len() != MAC || !bool::from(subtle::ConstantTimeEq::ct_eq(&own.as_ref()[..MAC], mac)) {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if counter >= used.next || used.next - counter > WINDOW {
            return false;
        }
        let (word, mask) = used.bit(counter);
        let fresh = *word & mask == 0;
        *word |= mask;
        fresh
    }

    fn mac(&self, counter: u64) -> hmac::Tag {
        hmac::sign(&self.key, &counter.to_be_bytes())
    }
}

fn used_mask(counter: u64) -> u64 {
    1 << (counter % 64)
}

impl Used {
    fn bit(&mut self, counter: u64) -> (&mut u64, u64) {
        let word = usize::try_from(counter % WINDOW / 64).unwrap_or_default();
        (&mut self.bits[word], used_mask(counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_good_once() {
        let nonces = Nonces::new().unwrap();
        let (one, two) = (nonces.issue(), nonces.issue());
        assert!(nonces.take(&two));
        assert!(nonces.take(&one));
        assert!(!nonces.take(&one) && !nonces.take(&two));
    }

    #[test]
    fn only_our_own_latest_are_good() {
        let nonces = Nonces::new().unwrap();
        let first = nonces.issue();
        for bad in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &first[1..], &format!("{first}AA"), "\u{e4}"] {
            assert!(!nonces.take(bad), "{bad}");
        }
        assert!(!Nonces::new().unwrap().take(&first), "of another CA");
        let second = nonces.issue();
        for _ in 0..WINDOW - 2 {
            nonces.issue();
        }
        assert!(nonces.take(&first), "the oldest of the window");
        nonces.issue();
        nonces.issue();
        assert!(!nonces.take(&second), "beyond the window");
        // The place of a used one is free again for the next that has it.
        assert!(nonces.take(&nonces.issue()));
    }
}
