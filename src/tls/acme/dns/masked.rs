//! What others said, fit to be shown: short, one line, without secrets.

/// Longest text that is passed on.
const LONGEST: usize = 300;
/// Shorter values would mask words that mean nothing.
const SHORTEST_SECRET: usize = 6;

/// The end of the text in one line, with each of the secrets replaced.
pub fn masked<'s>(text: &str, secrets: impl IntoIterator<Item = &'s str>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().map(str::trim).filter(|s| s.len() >= SHORTEST_SECRET).collect();
    // A longer one may hold a shorter one.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    let text = secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"));
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    let cut = line.char_indices().rev().nth(LONGEST - 1).map_or(0, |(at, _)| at);
    if cut == 0 { line } else { format!("…{}", &line[cut..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_short_line_without_secrets() {
        let text = "denied:\n\tkey hunter2-long and\x1b[31m hunter2\n";
        assert_eq!(masked(text, ["hunter2", "hunter2-long", "a", ""]), "denied: key … and [31m …");
        let long = masked(&"é".repeat(1000), []);
        assert_eq!(long.chars().count(), LONGEST + 1);
    }
}
