//! The embedded table (`prices.txt`, which says its date, sources and words) and how a model's name leads to its line.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{Line, Tariff, gather};

/// Prefixes that name who makes or serves a model, not another model.
const VENDORS: &[&str] = &[
    "openai/",
    "azure/",
    "anthropic/",
    "google/",
    "gemini/",
    "models/",
    "mistral/",
    "xai/",
    "x-ai/",
    "cohere/",
    "moonshot/",
    "zai/",
    "minimax/",
    "dashscope/",
    "perplexity/",
    "voyage/",
    "bedrock/",
    "deepseek/",
];

static TABLE: LazyLock<HashMap<String, Tariff>> = LazyLock::new(|| {
    let lines = include_str!("prices.txt").lines().filter_map(line);
    gather(lines).into_iter().map(|tariff| (tariff.model.clone(), tariff)).collect()
});

/// The lines of a model, by its name as asked for or as answered.
pub(super) fn find(model: &str) -> Option<&'static Tariff> {
    if let Some(tariff) = TABLE.get(model) {
        return Some(tariff);
    }
    // No id is that long, and names come from strangers.
    if model.len() > 200 {
        return None;
    }
    let lower = model.to_ascii_lowercase();
    let name = lower.strip_suffix(":latest").unwrap_or(&lower);
    let name = VENDORS.iter().find_map(|vendor| name.strip_prefix(vendor)).unwrap_or(name);
    TABLE.get(name).or_else(|| TABLE.get(undated(name)?))
}

/// Without the date of a snapshot (`-2026-03-05`, `-20260305`, `@20260305`) or `-latest`; `None` when it has neither.
fn undated(name: &str) -> Option<&str> {
    if let Some(name) = name.strip_suffix("-latest") {
        return Some(name);
    }
    [("-", "dddd-dd-dd"), ("-", "dddddddd"), ("@", "dddddddd")].iter().find_map(|(before, shape)| {
        let (name, date) = name.split_at_checked(name.len().checked_sub(shape.len())?)?;
        let fits = date.bytes().zip(shape.bytes()).all(|(c, s)| if s == b'd' { c.is_ascii_digit() } else { c == s });
        fits.then(|| name.strip_suffix(before)).flatten()
    })
}

/// `None` for a comment or an empty line; a test sees to it that every other line is one.
fn line(text: &str) -> Option<Line> {
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    Line::parse(&text.split(' ').collect::<Vec<_>>()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{AS_OF, Service};
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let text = include_str!("prices.txt");
        assert!(text.contains(&format!("As of {AS_OF}.")));
        let mut seen = std::collections::HashSet::new();
        for text in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let line = line(text).unwrap_or_else(|| panic!("not a line: {text}"));
            assert_eq!(line.model, line.model.to_ascii_lowercase(), "{text}");
            assert!(seen.insert((line.model.clone(), line.above, format!("{:?}", line.service))), "twice: {text}");
            let rate = line.rate;
            assert!(rate.input > 0 && rate.cached.is_none_or(|cached| cached <= rate.input), "{text}");
            assert!(rate.output == 0 || rate.output >= rate.input, "{text}");
        }
        // Each model has a line for calls of any length under no particular service.
        for tariff in TABLE.values() {
            assert!(
                tariff.lines.iter().any(|line| line.above == 0 && line.service == Service::default()),
                "{tariff:?}"
            );
        }
        assert!(TABLE.len() > 300, "{}", TABLE.len());
    }

    #[test]
    fn dates_come_off() {
        for (name, bare) in [
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("claude-opus-4-7-20260416", Some("claude-opus-4-7")),
            ("claude-opus-4-7@20260416", Some("claude-opus-4-7")),
            ("gpt-5-chat-latest", Some("gpt-5-chat")),
            ("gpt-4o", None),
            ("2024-08-06", None),
            ("é20260416", None),
        ] {
            assert_eq!(undated(name), bare, "{name}");
        }
    }
}
