//! A merged list of models: the first of each id counts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::llm::model_list::Entry;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct List {
    entries: Arc<[Entry]>,
    places: Arc<HashMap<Box<str>, usize>>,
}

impl List {
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut places: HashMap<Box<str>, usize> = HashMap::new();
        let mut kept = Vec::new();
        for entry in entries {
            if !places.contains_key(entry.id()) {
                places.insert(entry.id().into(), kept.len());
                kept.push(entry);
            }
        }
        Self { entries: kept.into(), places: Arc::new(places) }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The model of this name; `name` and `name:latest` are one.
    pub fn find(&self, id: &str) -> Option<&Entry> {
        const LATEST: &str = ":latest";
        let place = self.places.get(id).or_else(|| match id.strip_suffix(LATEST) {
            Some(bare) => self.places.get(bare),
            None if id.contains(':') => None,
            None => self.places.get(format!("{id}{LATEST}").as_str()),
        })?;
        self.entries.get(*place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_an_id_counts_and_the_order_stays() {
        let made = |id: &str, owner: &str| Entry::made(id, owner, None, 0);
        let list = List::of([made("b", "1"), made("a:latest", "1"), made("b", "2"), made("c:8b", "1")]);
        assert_eq!(list.entries().iter().map(Entry::id).collect::<Vec<_>>(), ["b", "a:latest", "c:8b"]);
        for (id, found) in
            [("b", Some("b")), ("a", Some("a:latest")), ("b:latest", Some("b")), ("c", None), ("x:latest", None)]
        {
            assert_eq!(list.find(id).map(Entry::id), found, "{id}");
        }
    }
}
