//! The stable sort of Go's standard library (insertion sort of small runs, then SymMerge).
//!
//! Caddy's orderings of routes and sites are not strict weak orders (equal `vars` lines compare as less both ways, a
//! multi-path matcher is equal to paths that differ among themselves), so the result depends on the algorithm. Rust's
//! sort would give another order, and may panic on such a comparison.

const RUN: usize = 20;

/// Sorts in place by `less`, which need not be a consistent order.
pub fn stable_sort_by<T>(items: &mut [T], mut less: impl FnMut(&T, &T) -> bool) {
    let n = items.len();
    let mut start = 0;
    while start + RUN <= n {
        insertion_sort(&mut items[start..start + RUN], &mut less);
        start += RUN;
    }
    insertion_sort(&mut items[start..], &mut less);

    let mut run = RUN;
    while run < n {
        let mut start = 0;
        while start + 2 * run <= n {
            sym_merge(items, start, start + run, start + 2 * run, &mut less);
            start += 2 * run;
        }
        if start + run < n {
            sym_merge(items, start, start + run, n, &mut less);
        }
        run *= 2;
    }
}

fn insertion_sort<T>(items: &mut [T], less: &mut impl FnMut(&T, &T) -> bool) {
    for i in 1..items.len() {
        let mut j = i;
        while j > 0 && less(&items[j], &items[j - 1]) {
            items.swap(j, j - 1);
            j -= 1;
        }
    }
}

/// Merges the sorted runs `first..second` and `second..end`.
fn sym_merge<T>(items: &mut [T], first: usize, second: usize, end: usize, less: &mut impl FnMut(&T, &T) -> bool) {
    if second - first == 1 {
        // Its one element goes before the first of the other run that is not less than it.
        let place = search(second, end, |at| !less(&items[at], &items[first]));
        items[first..place].rotate_left(1);
        return;
    }
    if end - second == 1 {
        // Its one element goes after the last of the other run that is not greater than it.
        let place = search(first, second, |at| less(&items[second], &items[at]));
        items[place..=second].rotate_right(1);
        return;
    }
    let mid = first.midpoint(end);
    let sum = mid + second;
    let (low, high) = if second > mid { (sum - end, mid) } else { (first, second) };
    let start = search(low, high, |at| less(&items[sum - 1 - at], &items[at]));
    let stop = sum - start;
    if start < second && second < stop {
        items[start..stop].rotate_left(second - start);
    }
    if first < start && start < mid {
        sym_merge(items, first, start, mid, less);
    }
    if mid < stop && stop < end {
        sym_merge(items, mid, stop, end, less);
    }
}

/// The first place of `low..high` at which `found` holds, by halving; `high` when at none.
fn search(mut low: usize, mut high: usize, mut found: impl FnMut(usize) -> bool) -> usize {
    while low < high {
        let middle = low.midpoint(high);
        if found(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_stably() {
        let mut state = 7u64;
        for length in [0, 1, 2, 19, 20, 21, 57, 300] {
            let mut items: Vec<(u64, usize)> = (0..length)
                .map(|i| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 60, i)
                })
                .collect();
            let mut expected = items.clone();
            expected.sort_by_key(|x| x.0);
            stable_sort_by(&mut items, |a, b| a.0 < b.0);
            assert_eq!(items, expected);
        }
    }

    #[test]
    fn always_less_reverses_a_small_slice() {
        let mut items = [1, 2, 3];
        stable_sort_by(&mut items, |_, _| true);
        assert_eq!(items, [3, 2, 1]);
    }
}
