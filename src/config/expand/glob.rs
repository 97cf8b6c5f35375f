//! Import patterns: at most one `*` and one `?`, in any part of the path, matched as Caddy's.

use std::path::{Path, PathBuf};

/// Has the pattern a wildcard?
pub(super) fn is_pattern(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// Patterns with many wildcards can take very long, so Caddy and we refuse them.
pub(super) fn is_too_wide(pattern: &str) -> bool {
    pattern.matches('*').count() > 1
        || pattern.matches('?').count() > 1
        || (pattern.contains('[') && pattern.contains(']'))
}

/// The paths that match an absolute pattern, in alphabetical order, and the directories that decide it.
pub(super) fn expand(pattern: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut found = vec![PathBuf::from("/")];
    let mut directories = Vec::new();
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        if is_pattern(part) {
            let mut next = Vec::new();
            for directory in &found {
                directories.push(directory.clone());
                next.extend(matching(directory, part));
            }
            found = next;
        } else {
            for path in &mut found {
                path.push(part);
            }
        }
    }
    found.retain(|p| p.symlink_metadata().is_ok());
    // Caddy skips hidden files when the last part of the pattern begins with the star.
    if pattern.rsplit('/').next().is_some_and(|last| last.starts_with('*')) {
        found.retain(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    }
    found.sort();
    (found, directories)
}

fn matching(directory: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let part: Vec<char> = part.chars().collect();
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name: Vec<char> = entry.file_name().to_string_lossy().chars().collect();
            matches(&part, &name)
        })
        .map(|entry| entry.path())
        .collect()
}

/// One `*` at most, so splitting there is enough; `?` is any one character.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let same = |p: &[char], n: &[char]| p.len() == n.len() && p.iter().zip(n).all(|(p, n)| *p == '?' || p == n);
    match pattern.iter().position(|c| *c == '*') {
        None => same(pattern, name),
        Some(star) => {
            let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
            name.len() >= head.len() + tail.len()
                && same(head, &name[..head.len()])
                && same(tail, &name[name.len() - tail.len()..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let check = |p: &str, n: &str| matches(&p.chars().collect::<Vec<_>>(), &n.chars().collect::<Vec<_>>());
        assert!(check("*.conf", "a.conf") && check("a*", "a") && check("a?c*", "abcd") && check("*", ""));
        assert!(!check("*.conf", "a.conf~") && !check("ab*ba", "aba") && !check("?", ""));
    }

    #[test]
    fn files_in_order_without_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".h.conf", "c.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let (found, directories) = expand(&format!("{}/*.conf", dir.path().display()));
        let names: Vec<_> = found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["a.conf", "b.conf"]);
        assert_eq!(directories, [dir.path()]);
    }
}
