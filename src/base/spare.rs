//! Things that were used, for those to come: their room is not allocated anew each time. One for each thread that uses it.

use std::cell::RefCell;

pub struct Spare<T> {
    kept: RefCell<Vec<T>>,
    most: usize,
}

impl<T> Spare<T> {
    /// Keeps at most so many.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { kept: RefCell::new(Vec::new()), most }
    }

    pub fn take(&self) -> Option<T> {
        self.kept.borrow_mut().pop()
    }

    /// Drops it when there are enough. What it held for a request has to be gone already.
    pub fn keep(&self, thing: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.most {
            kept.push(thing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_told() {
        let spare = Spare::new(2);
        (0..5).for_each(|n| spare.keep(n));
        assert_eq!((spare.take(), spare.take(), spare.take()), (Some(1), Some(0), None));
    }
}
