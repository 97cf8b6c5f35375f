//! What a model's name tells: the effort that Cursor put at its end, and fields that the model refuses.

use super::Options;

/// Levels that providers take for `reasoning_effort`.
const LEVELS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// What `-fast` stands for: the lowest level that every reasoning model takes.
const FAST: &str = "low";

/// Names that end in `-fast` at their makers.
const FAST_BY_NAME: [&str; 2] = ["grok-", "@cf/"];

/// The name without Cursor's endings, and the effort that they ask for; `None` when it has none.
pub(super) fn split<'m>(model: &'m str, options: &Options) -> Option<(&'m str, &'static str)> {
    if !options.suffixes || options.literal.allows(model) {
        return None;
    }
    let fast = model.strip_suffix("-fast").filter(|_| !FAST_BY_NAME.iter().any(|p| model.starts_with(p)));
    let rest = fast.unwrap_or(model);
    let thinking = rest.rsplit_once("-thinking-").and_then(|(name, level)| {
        let level = LEVELS.into_iter().find(|known| *known == level)?;
        Some((name, level))
    });
    let (name, effort) = thinking.or(fast.map(|name| (name, FAST)))?;
    (!name.is_empty()).then_some((name, effort))
}

/// Reasoning models of OpenAI: they refuse `max_tokens`, and any temperature but 1.
pub(super) fn is_strict(model: &str) -> bool {
    // Gateways put the maker in front: `openai/gpt-5`.
    let name = model.rsplit('/').next().unwrap_or(model);
    ["gpt-5", "o1", "o3", "o4"].iter().any(|family| {
        let rest = name.strip_prefix(family);
        // `o1` and `o1-mini`, not `o100`.
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Reasoning;
    use super::*;
    use crate::llm::model_glob::ModelGlobs;

    #[test]
    fn endings_become_an_effort() {
        let options = Options { reasoning: Reasoning::Keep, suffixes: true, literal: ModelGlobs::new(["my-*-fast"]) };
        for (model, expected) in [
            ("gpt-5-thinking-high", Some(("gpt-5", "high"))),
            ("claude-5-opus-thinking-xhigh", Some(("claude-5-opus", "xhigh"))),
            ("gpt-5-fast", Some(("gpt-5", "low"))),
            ("gpt-5-thinking-high-fast", Some(("gpt-5", "high"))),
            ("gpt-5", None),
            ("claude-4-sonnet-thinking", None),
            ("kimi-k2-thinking-turbo", None),
            ("grok-4-fast", None),
            ("grok-4-thinking-low", Some(("grok-4", "low"))),
            ("my-own-fast", None),
            ("-fast", None),
            ("-thinking-low", None),
        ] {
            assert_eq!(split(model, &options), expected, "{model}");
        }
        assert_eq!(split("gpt-5-fast", &Options { suffixes: false, ..options }), None);
    }

    #[test]
    fn reasoning_models_are_known_by_family() {
        for model in ["gpt-5", "gpt-5.6-mini", "openai/gpt-5", "o1", "o3-mini", "o4-mini-2025"] {
            assert!(is_strict(model), "{model}");
        }
        for model in ["gpt-4o", "gpt-50", "o100", "olmo", "claude-5"] {
            assert!(!is_strict(model), "{model}");
        }
    }
}
