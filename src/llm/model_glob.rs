//! Patterns of model names: `gpt-4o*`, `claude-?-opus`, `*`.

/// Names that are allowed. No pattern allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelGlobs(Box<[Box<str>]>);

impl ModelGlobs {
    /// `*` stands for any run of characters, `?` for one; everything else for itself, in its letter case.
    #[must_use]
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        Self(patterns.into_iter().map(|p| Box::from(p.as_ref())).collect())
    }

    /// Whether a model is among them. Ollama's `name` and `name:latest` are one model.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, model))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// Whether one pattern means this model.
#[must_use]
pub fn matches(pattern: &str, model: &str) -> bool {
    const LATEST: &str = ":latest";
    glob(pattern, model)
        || model.strip_suffix(LATEST).is_some_and(|bare| glob(pattern, bare))
        || pattern.strip_suffix(LATEST).is_some_and(|bare| glob(bare, model))
}

/// Whether a pattern fits a text, letter case and all.
///
/// Going back to the latest star is enough: an earlier one could never make more of the same text.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
            }
            (Some(b'?'), Some(first)) => {
                p += 1;
                t += char_len(*first);
            }
            (Some(a), Some(b)) if a == b => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, reach)) if reach < text.len() => {
                    star = Some((after, reach + 1));
                    (p, t) = (after, reach + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Bytes of the character that begins with this one.
fn char_len(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_question_marks_and_tags() {
        for (pattern, model, yes) in [
            ("*", "anything/at:all", true),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("gpt-4o*", "gpt-4", false),
            ("gpt-?o", "gpt-4o", true),
            ("gpt-?o", "gpt-o", false),
            ("?", "é", true),
            ("*-mini*", "o4-mini-high", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("GPT-4", "gpt-4", false),
            ("llama3", "llama3:latest", true),
            ("llama3:latest", "llama3", true),
            ("llama3", "llama3:8b", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, model), yes, "{pattern} {model}");
        }
        assert!(!ModelGlobs::default().allows("a"));
        assert!(ModelGlobs::new(["a", "b*"]).allows("bc"));
    }

    #[test]
    fn many_stars_are_quick() {
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
        assert!(!matches(&("*a".repeat(30) + "b"), &"a".repeat(10_000)));
    }
}
