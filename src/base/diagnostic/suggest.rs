//! The nearest known name to a mistyped one.

/// The candidate within an edit distance of a third of the word's length (at least one), if there is exactly one best.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().collect();
    // Nobody mistypes a name this long, and the distance costs the product of the lengths.
    if word.is_empty() || word.len() > 100 {
        return None;
    }
    let limit = (word.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    let mut tied = false;
    for candidate in candidates {
        let Some(distance) = distance(&word, candidate, limit) else { continue };
        match best {
            Some((known, name)) if distance == known => tied |= name != candidate,
            Some((known, _)) if distance > known => {}
            _ => {
                best = Some((distance, candidate));
                tied = false;
            }
        }
    }
    best.filter(|_| !tied).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours; `None` above the limit.
fn distance(word: &[char], candidate: &str, limit: usize) -> Option<usize> {
    let other: Vec<char> = candidate.chars().collect();
    if other.len().abs_diff(word.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i + 1);
        for (j, b) in other.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && word[i - 1] == *b && other[j - 1] == *a {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn one_clear_winner_or_nothing() {
        let names = ["respond", "reverse_proxy", "request_body", "route", "root"];
        assert_eq!(nearest("reverse-proxy", names), Some("reverse_proxy"));
        assert_eq!(nearest("repsond", names), Some("respond"));
        assert_eq!(nearest("roote", names), None);
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest("rout", ["route"]), Some("route"));
        assert_eq!(nearest("", names), None);
    }
}
