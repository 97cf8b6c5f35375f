//! Header names as they come: nearly all are the same few, so each thread remembers those it read last.

use std::cell::RefCell;

use http::HeaderName;

/// Longer names are not remembered.
const LONGEST: usize = 32;
/// Names are remembered in so many groups.
const GROUP_BITS: u32 = 6;
/// Names of a group: the few that come stay, though some share a group by chance.
const GROUP: usize = 4;

thread_local! {
    /// Group after group. What a stranger sends can only push other names out of theirs.
    static SEEN: RefCell<Vec<Option<Seen>>> = const { RefCell::new(Vec::new()) };
}

struct Seen {
    bytes: [u8; LONGEST],
    length: usize,
    name: HeaderName,
}

/// The name; `None` when it is not one.
pub fn read(bytes: &[u8]) -> Option<HeaderName> {
    if bytes.len() > LONGEST {
        return HeaderName::from_bytes(bytes).ok();
    }
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            seen.resize_with(GROUP << GROUP_BITS, || None);
        }
        let group = seen.get_mut(GROUP * group_of(bytes)..)?.first_chunk_mut::<GROUP>()?;
        let known = |seen: &&Seen| seen.length == bytes.len() && seen.bytes.get(..seen.length) == Some(bytes);
        if let Some(seen) = group.iter().flatten().find(known) {
            return Some(seen.name.clone());
        }
        let name = HeaderName::from_bytes(bytes).ok()?;
        let mut seen = Seen { bytes: [0; LONGEST], length: bytes.len(), name: name.clone() };
        seen.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        // The eldest goes.
        group.rotate_right(1);
        group[0] = Some(seen);
        Some(name)
    })
}

fn group_of(bytes: &[u8]) -> usize {
    let word = match (bytes.last_chunk::<8>(), bytes.last_chunk::<4>()) {
        (Some(last), _) => u64::from_le_bytes(*last),
        (None, Some(last)) => u64::from(u32::from_le_bytes(*last)),
        (None, None) => u64::from(bytes.first().copied().unwrap_or(0)),
    };
    let mixed = (word ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> (u64::BITS - GROUP_BITS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that were read before, names that share a group with others, and what is no name.
    #[test]
    fn names_are_read_as_http_reads_them() {
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let length = rng.usize(0..40);
            let mut name: Vec<u8> = (0..length).map(|_| *rng.choice(b"aA-z").unwrap()).collect();
            if rng.u8(..8) == 0 {
                name.push(rng.u8(..));
            }
            for _ in 0..2 {
                assert_eq!(read(&name), HeaderName::from_bytes(&name).ok(), "{name:?}");
            }
        }
        assert_eq!(read(b"Content-Type"), Some(http::header::CONTENT_TYPE));
        assert_eq!(read(b"content-type"), Some(http::header::CONTENT_TYPE));
    }
}
