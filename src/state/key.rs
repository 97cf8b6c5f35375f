//! The name under which something is counted, as a number: a key of a megabyte takes sixteen bytes, and nobody can choose
//! keys that fall together, for the numbers are made with secrets of this process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// 128 bits of a text. Equal texts have equal keys within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub(super) [u64; 2]);

static SECRETS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

impl Key {
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(SECRETS.each_ref().map(|secret| {
            let mut hasher = secret.build_hasher();
            hasher.write(bytes);
            hasher.finish()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_equal_keys() {
        let long = "x".repeat(1 << 20);
        assert_eq!(Key::of(&long), Key::of(&long.clone()));
        assert_ne!(Key::of(&long), Key::of(&long[1..]));
        assert_ne!(Key::of(""), Key::of("a"));
        let [a, b] = Key::of("a").0;
        assert_ne!(a, b);
    }
}
