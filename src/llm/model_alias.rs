//! Names that stand for other models.

use super::model_glob;

/// Pairs of a name or pattern and the model it stands for, in the order they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(Box<[(Box<str>, Box<str>)]>);

impl Aliases {
    #[must_use]
    pub fn new<S: AsRef<str>>(pairs: impl IntoIterator<Item = (S, S)>) -> Self {
        Self(pairs.into_iter().map(|(from, to)| (from.as_ref().into(), to.as_ref().into())).collect())
    }

    /// What a name stands for: the first pair that fits. `name` and `name:latest` are one name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(from, _)| model_glob::matches(from, name)).map(|(_, to)| &**to)
    }

    /// Those that can be listed: a pattern is no name.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(from, _)| !from.contains(['*', '?'])).map(|(from, to)| (&**from, &**to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_counts() {
        let aliases = Aliases::new([("fast", "gpt-4o-mini"), ("gpt-3.5*", "gpt-4o"), ("gpt-3.5-turbo", "never")]);
        assert_eq!(aliases.find("fast"), Some("gpt-4o-mini"));
        assert_eq!(aliases.find("fast:latest"), Some("gpt-4o-mini"));
        assert_eq!(aliases.find("gpt-3.5-turbo"), Some("gpt-4o"));
        assert_eq!(aliases.find("gpt-4o"), None);
        let names: Vec<_> = aliases.names().collect();
        assert_eq!(names, [("fast", "gpt-4o-mini"), ("gpt-3.5-turbo", "never")]);
    }
}
