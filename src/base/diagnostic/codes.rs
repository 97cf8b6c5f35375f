//! Every diagnostic code with its long explanation, shown by `llmproxy explain CODE`.
//!
//! A code is a stable word: people search for it and scripts test it, so it is never renamed. In alphabetical order, in
//! two volumes.

mod a_to_l;
mod m_to_z;

/// A code, its meaning in a line, and the long form.
pub type Code = (&'static str, &'static str, &'static str);

/// The entry of a code.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Code> {
    let found = |volume: &'static [Code]| {
        volume.binary_search_by_key(&code, |(code, _, _)| code).ok().and_then(|index| volume.get(index))
    };
    found(a_to_l::CODES).or_else(|| found(m_to_z::CODES))
}

/// All of them, in order.
pub fn all() -> impl Iterator<Item = &'static Code> {
    a_to_l::CODES.iter().chain(m_to_z::CODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_table_is_in_order_and_complete_in_itself() {
        assert!(all().is_sorted_by(|a, b| a.0 < b.0), "codes must be in alphabetical order, each once");
        for (code, title, text) in all() {
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{code}");
            assert!(!title.is_empty() && !title.ends_with('.') && text.ends_with('.'), "{code}");
        }
        assert!(explain("unclosed-block").is_some() && explain("no-such-code").is_none());
    }

    #[test]
    fn every_code_in_use_has_an_entry() {
        let makers = [
            r#"Diagnostic::(?:error|warning)\(\s*"([a-z0-9-]+)""#,
            r#"CompileError::new\(\s*"([a-z0-9-]+)""#,
            r#"\.error\(\s*"([a-z0-9-]+)""#,
            r#"\.err\((?:[^"(),]|\(\))*,\s*"([a-z0-9-]+)""#,
            r#"unterminated\(\s*"([a-z0-9-]+)""#,
        ];
        let makers = makers.map(|m| regex::Regex::new(m).unwrap());
        let mut used = BTreeSet::new();
        visit(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut |text| {
            for maker in &makers {
                used.extend(maker.captures_iter(text).map(|c| c[1].to_owned()));
            }
        });
        assert!(used.len() > 30, "the search for codes is broken: {used:?}");
        let missing: Vec<_> = used.iter().filter(|code| explain(code).is_none()).collect();
        assert!(missing.is_empty(), "add these codes to src/base/diagnostic/codes/: {missing:?}");
    }

    fn visit(directory: &Path, read: &mut dyn FnMut(&str)) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, read);
            } else if path.extension().is_some_and(|e| e == "rs") {
                read(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
