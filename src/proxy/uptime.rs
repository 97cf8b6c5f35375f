//! Moments as numbers, so that what is asked on every request needs no lock.

use std::sync::LazyLock;
use std::time::Instant;

/// Milliseconds since this was first asked, from 1 on.
pub(super) fn millis(now: Instant) -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = now.saturating_duration_since(*FIRST).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}
