//! Money.

/// A billionth of a dollar. Prices are dollars per million tokens, so that one token costs a whole number of these even
/// where a price has three decimals. Sums over many calls are made in `i128`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nano(pub i64);
