//! What calls are labelled with: what is known of the caller, and what the configuration adds.

use std::sync::Arc;

use crate::http::exchange::Exchange;
use crate::http::placeholder::{Template, Unknown};

/// Labels whose values are worked out when a call is made, since by then more is known than when the handler ran.
pub struct Labels(Box<[(Box<str>, Template)]>);

impl Labels {
    /// By name, with texts that may have placeholders.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Arc<Self> {
        Arc::new(Self(labels.into_iter().map(|(name, text)| (name.into(), Template::parse(text))).collect()))
    }
}

/// The labels of a call that is made now, none of them empty: team, app and tags of the caller, then those of handlers; of
/// two of a name the later counts.
#[must_use]
pub fn labels(ex: &Exchange) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        let known = out.iter_mut().find(|(known, _)| known == name);
        match (known, value.is_empty()) {
            (_, true) => {}
            (Some(slot), false) => value.clone_into(&mut slot.1),
            (None, false) => out.push((name.to_owned(), value.to_owned())),
        }
    };
    for (name, value) in ex.user.iter().flat_map(|user| &user.metadata) {
        match name.as_str() {
            "team" | "app" => set(name, value),
            // Of a JWT all claims are known: they are no labels.
            name => {
                if let Some(tag) = name.strip_prefix("tag.") {
                    set(tag, value);
                }
            }
        }
    }
    if let Some(meter) = &ex.meter {
        for (name, template) in meter.late_labels.iter().flat_map(|labels| &labels.0) {
            set(name, &template.render(ex, Unknown::Empty));
        }
        for (name, value) in &meter.labels {
            set(name, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::exchange::User;
    use super::super::super::exchange::testing::exchange;
    use super::*;

    #[test]
    fn callers_and_the_configuration_label_a_call() {
        let mut ex = exchange("POST", "/v1/chat/completions", &[("x-project", "blue")]);
        let late = Labels::new([
            ("project", "{http.request.header.x-project}"),
            ("team", "of {http.auth.user.id}"),
            ("none", "{nothing}"),
        ]);
        ex.meter().late_labels.push(late);
        // Known only after the handler ran.
        ex.user = Some(User { id: "ann".into(), ..User::default() });
        let metadata = [("team", "core"), ("app", "chat"), ("tag.cost", "7"), ("email", "ann@a.test")];
        if let Some(user) = &mut ex.user {
            user.metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        }
        ex.meter().label("app", "ide".into());
        let labels = labels(&ex);
        let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("team", "of ann"), ("app", "ide"), ("cost", "7"), ("project", "blue")]);
    }
}
