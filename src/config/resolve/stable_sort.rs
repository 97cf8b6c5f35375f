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

/// Merges the sorted runs `a..m` and `m..b`.
fn sym_merge<T>(items: &mut [T], a: usize, m: usize, b: usize, less: &mut impl FnMut(&T, &T) -> bool) {
    if m - a == 1 {
        // Insert items[a] before the first element of the second run that is not less than it.
        let (mut i, mut j) = (m, b);
        while i < j {
            let h = i.midpoint(j);
            if less(&items[h], &items[a]) { i = h + 1 } else { j = h }
        }
        items[a..i].rotate_left(1);
        return;
    }
    if b - m == 1 {
        // Insert items[m] after the last element of the first run that is not greater than it.
        let (mut i, mut j) = (a, m);
        while i < j {
            let h = i.midpoint(j);
            if less(&items[m], &items[h]) { j = h } else { i = h + 1 }
        }
        items[i..=m].rotate_right(1);
        return;
    }
    let mid = a.midpoint(b);
    let n = mid + m;
    let (mut start, mut r) = if m > mid { (n - b, mid) } else { (a, m) };
    let p = n - 1;
    while start < r {
        let c = start.midpoint(r);
        if less(&items[p - c], &items[c]) { r = c } else { start = c + 1 }
    }
    let end = n - start;
    if start < m && m < end {
        items[start..end].rotate_left(m - start);
    }
    if a < start && start < mid {
        sym_merge(items, a, start, mid, less);
    }
    if mid < end && end < b {
        sym_merge(items, mid, end, b, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_stably() {
        let mut state = 7u64;
        for n in [0, 1, 2, 19, 20, 21, 57, 300] {
            let mut items: Vec<(u64, usize)> = (0..n)
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
