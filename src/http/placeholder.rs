//! Placeholders: `{http.request.uri}` and the like, compiled to segments once and rendered per request.
//!
//! The scan is that of Caddy's replacer: a placeholder runs from `{` to the first `}` that is not escaped; `\{` and
//! `\}` are braces; an opening brace that is never closed is text. A name that is unknown at run time and to be kept
//! is text too, and the scan goes on behind its opening brace, so that `{a{http.request.host}` still shows the host.
//! Values of the environment, the system and such are known when compiled and become text then.

mod certificate;
mod fixed;
mod key;
mod request;

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;

pub use key::{Key, UriPart};

use super::exchange::Exchange;

/// What an unknown placeholder becomes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing (Caddy's ReplaceAll with an empty string).
    Empty,
    /// Itself, braces included (Caddy's ReplaceKnown).
    Literal,
}

/// A text with placeholders, compiled.
#[derive(Clone, Default)]
pub struct Template {
    source: Box<str>,
    segments: Box<[Segment]>,
    /// `source` after escapes and constant placeholders, when nothing else is in it.
    constant: Option<Box<str>>,
}

#[derive(Clone)]
enum Segment {
    Text(Box<str>),
    Place {
        key: Key,
        /// How many of the following segments are what stands here instead when the name is unknown and kept.
        alternative: usize,
    },
}

/// Where values come from.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub exchange: &'a Exchange,
    /// Headers of the response, in stages; else `{http.response.header.*}` shows those set early.
    pub response_headers: Option<&'a HeaderMap>,
}

impl<'a> From<&'a Exchange> for Scope<'a> {
    fn from(exchange: &'a Exchange) -> Self {
        Self { exchange, response_headers: None }
    }
}

impl Template {
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let segments = compile(text);
        let constant = match segments.as_slice() {
            [] => Some(Box::default()),
            [Segment::Text(only)] => Some(only.clone()),
            _ => None,
        };
        Self { source: text.into(), segments: segments.into(), constant }
    }

    /// The text as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The whole value when it is the same for every request: no placeholder, or only such as `{env.*}`.
    #[must_use]
    pub fn as_static(&self) -> Option<&str> {
        self.constant.as_deref()
    }

    /// The key when the text is one placeholder and nothing else.
    #[must_use]
    pub fn as_key(&self) -> Option<&Key> {
        match &*self.segments {
            [Segment::Place { key, alternative }, rest @ ..] if rest.len() == *alternative => Some(key),
            _ => None,
        }
    }

    /// The text for this request. Borrowed when it is static or one placeholder whose value is at hand.
    #[must_use]
    pub fn render<'a>(&'a self, ex: &'a Exchange, unknown: Unknown) -> Cow<'a, str> {
        self.render_in(ex.into(), unknown)
    }

    /// The same with the response's headers at hand.
    #[must_use]
    pub fn render_in<'a>(&'a self, scope: Scope<'a>, unknown: Unknown) -> Cow<'a, str> {
        if let Some(constant) = &self.constant {
            return Cow::Borrowed(constant);
        }
        if let Some(key) = self.as_key()
            && let Some(value) = key.value(scope)
        {
            return value;
        }
        Cow::Owned(self.render_each(scope, unknown, |_, value, out| out.push_str(&value)))
    }

    /// The text where there is no request: the time and files have their values, what is unknown stays as written.
    #[must_use]
    pub fn render_alone(&self) -> String {
        let mut out = String::with_capacity(self.source.len());
        let mut rest = &*self.segments;
        while let [segment, tail @ ..] = rest {
            rest = tail;
            match segment {
                Segment::Text(text) => out.push_str(text),
                Segment::Place { key, alternative } => {
                    if let Some(value) = key.value_alone() {
                        out.push_str(&value);
                        rest = &tail[*alternative..];
                    }
                }
            }
        }
        out
    }

    /// The text with each placeholder's value written by `write`, which may encode it for where it goes.
    pub fn render_each(
        &self,
        scope: Scope<'_>,
        unknown: Unknown,
        mut write: impl FnMut(&Key, Cow<'_, str>, &mut String),
    ) -> String {
        let mut out = String::with_capacity(self.source.len() + 32);
        let mut rest = &*self.segments;
        while let [segment, tail @ ..] = rest {
            rest = tail;
            match segment {
                Segment::Text(text) => out.push_str(text),
                Segment::Place { key, alternative } => match (key.value(scope), unknown) {
                    (Some(value), _) => {
                        write(key, value, &mut out);
                        rest = &tail[*alternative..];
                    }
                    (None, Unknown::Empty) => rest = &tail[*alternative..],
                    (None, Unknown::Literal) => {}
                },
            }
        }
        out
    }
}

impl fmt::Debug for Template {
    /// The text as written: the compiled form may hold values of the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The value of a placeholder by its full name, without braces; `None` when it is unknown. For names that are known
/// only at run time; a name from the configuration is compiled to a [`Key`].
#[must_use]
pub fn lookup<'a>(name: &str, ex: &'a Exchange) -> Option<Cow<'a, str>> {
    let key = Key::parse(name);
    key.value(Scope::from(ex)).map(|v| Cow::Owned(v.into_owned()))
}

/// Openings inside one another beyond this are text (Caddy gives up at as many).
const MAX_NESTED: usize = 100;

fn compile(text: &str) -> Vec<Segment> {
    let bytes = text.as_bytes();
    let mut out = Builder::default();
    // Places whose alternative is being collected, with the position behind their closing brace.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let last_close = memchr::memrchr(b'}', bytes);
    let mut written = 0;
    let mut at = 0;
    while at < bytes.len() {
        if open.last().is_some_and(|(_, end)| *end == at) {
            out.text(&text[written..at]);
            written = at;
            while let Some(&(place, end)) = open.last()
                && end == at
            {
                out.close(place);
                open.pop();
            }
        }
        let brace = bytes[at] == b'{' || bytes[at] == b'}';
        if brace && at > 0 && bytes[at - 1] == b'\\' {
            out.text(&text[written..at - 1]);
            written = at;
        } else if bytes[at] == b'{'
            && open.len() < MAX_NESTED
            && last_close.is_some_and(|c| c > at)
            && let Some(end) = find_end(bytes, at)
        {
            out.text(&text[written..at]);
            written = at;
            let name = &text[at + 1..end];
            match Key::parse(name) {
                Key::Fixed(value) => {
                    out.text(&value);
                    at = end;
                    written = end + 1;
                }
                key if key.always_known() => {
                    out.push(Segment::Place { key, alternative: 0 });
                    at = end;
                    written = end + 1;
                }
                key => {
                    open.push((out.len(), end + 1));
                    out.push(Segment::Place { key, alternative: 0 });
                }
            }
        }
        at += 1;
    }
    out.text(&text[written..]);
    while let Some((place, _)) = open.pop() {
        out.close(place);
    }
    out.segments
}

/// The closing brace of the placeholder that opens at `start`.
fn find_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut end = start + memchr::memchr(b'}', &bytes[start..])?;
    while end + 1 < bytes.len() && bytes[end - 1] == b'\\' {
        end += 1 + memchr::memchr(b'}', &bytes[end + 1..])?;
    }
    Some(end)
}

/// Segments with neighbouring texts joined, except across the end of an alternative.
#[derive(Default)]
struct Builder {
    segments: Vec<Segment>,
    /// The last segment ends an alternative or begins behind a place: text must not be joined to it.
    barrier: bool,
}

impl Builder {
    fn len(&self) -> usize {
        self.segments.len()
    }

    fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
        self.barrier = false;
    }

    fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !self.barrier
            && let Some(Segment::Text(last)) = self.segments.last_mut()
        {
            *last = format!("{last}{text}").into();
            return;
        }
        self.push(Segment::Text(text.into()));
    }

    fn close(&mut self, place: usize) {
        let count = self.segments.len() - place - 1;
        if let Some(Segment::Place { alternative, .. }) = self.segments.get_mut(place) {
            *alternative = count;
        }
        self.barrier = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;

    fn known(text: &str) -> String {
        let ex = exchange("GET", "/p/q%20r.tar.gz?b=2&c=3&c=4%26", &[("host", "api.a.Test:8080"), ("cookie", "k=v")]);
        Template::parse(text).render(&ex, Unknown::Literal).into_owned()
    }

    fn all(text: &str) -> String {
        let ex = exchange("GET", "/", &[("host", "a.test")]);
        Template::parse(text).render(&ex, Unknown::Empty).into_owned()
    }

    #[test]
    fn the_scan_is_that_of_caddy() {
        assert_eq!(known("a\\}b"), "a}b");
        assert_eq!(
            known("{a{http.request.host}}|{nope\\}x}|{|\\{y\\}|{http.request.method}"),
            "{aapi.a.Test}|{nope}x}|{|{y}|GET"
        );
        assert_eq!(known("}\\}|{"), "}}|{");
        assert_eq!(all("[{nope}]{a{b}}|"), "[]}|");
        assert_eq!(all("{unclosed"), "{unclosed");
        assert_eq!(all(""), "");
        let deep = "{".repeat(20_000) + "}";
        assert_eq!(known(&deep), deep);
    }

    proptest::proptest! {
        #[test]
        fn any_text_renders(text in r"[a-b{}\\é.]{0,24}") {
            let ex = exchange("GET", "/", &[]);
            let template = Template::parse(&text);
            let kept = template.render(&ex, Unknown::Literal);
            // No such name is known, so only backslashes in front of braces go.
            let expected = text.replace("\\{", "{").replace("\\}", "}");
            proptest::prop_assert_eq!(kept, expected);
            let _ = template.render(&ex, Unknown::Empty);
        }
    }

    #[test]
    fn the_caller_by_either_name() {
        let mut ex = exchange("GET", "/", &[]);
        let render = |ex: &_, text: &str| Template::parse(text).render(ex, Unknown::Literal).into_owned();
        assert_eq!(render(&ex, "[{auth.id}{auth.team}]{http.auth.user.id}"), "[]{http.auth.user.id}");
        let metadata = [("team", "core"), ("tag.cost", "42"), ("sub", "u1")].map(|(k, v)| (k.into(), v.into()));
        let user = crate::http::exchange::User { id: "ide".into(), metadata: metadata.into(), ..Default::default() };
        ex.user = Some(user);
        assert_eq!(render(&ex, "{auth.id} {auth.team} {auth.tag.cost} {auth.claim.sub} {auth.app}"), "ide core 42 u1 ");
        assert_eq!(render(&ex, "{http.auth.user.id} {http.auth.user.team}"), "ide core");
    }

    #[test]
    fn parts_of_the_request() {
        let cases = [
            ("{http.request.uri}", "/p/q%20r.tar.gz?b=2&c=3&c=4%26"),
            ("{http.request.uri.path}", "/p/q r.tar.gz"),
            ("{http.request.uri.path_escaped}", "%2Fp%2Fq+r.tar.gz"),
            ("{http.request.uri.path.0}:{http.request.uri.path.9}", "p:"),
            ("{http.request.uri.path.file.base}{http.request.uri.path.file.ext}", "q r.tar.gz"),
            ("{http.request.uri.path.dir}{http.request.uri.path.file}", "/p/q r.tar.gz"),
            ("{http.request.uri.prefixed_query}", "?b=2&c=3&c=4%26"),
            ("{http.request.uri.query.c}", "3,4&"),
            ("{http.request.uri.path.-1}", "{http.request.uri.path.-1}"),
            ("{http.request.host}:{http.request.port}", "api.a.Test:8080"),
            ("{http.request.host.labels.0}.{http.request.host.labels.2}{http.request.host.labels.7}", "test.api"),
            ("{http.request.cookie.K}{http.request.cookie.x}", "v"),
            ("{http.request.header.Cookie}{http.request.header.Host}", "k=v"),
            ("{http.vars.nope}{http.request.tls.version}", ""),
            ("{http.error.status_code}{http.regexp.1}", "{http.error.status_code}{http.regexp.1}"),
            ("{http.request.remote.host/16,64}", "192.0.0.0/16"),
            ("{http.vars.client_ip}", "192.0.2.7"),
            ("{system.slash}{env.SURELY_NOT_SET_ANYWHERE}", "/"),
        ];
        for (text, want) in cases {
            assert_eq!(known(text), want, "{text}");
        }
    }

    #[test]
    fn nothing_is_copied_for_a_constant_or_one_borrowed_value() {
        let ex = exchange("GET", "/x", &[("host", "a.test")]);
        assert_eq!(Template::parse("a{system.slash}b").as_static(), Some("a/b"));
        assert_eq!(Template::parse("a{http.request.host}").as_static(), None);
        let one = Template::parse("{http.request.host}");
        assert!(matches!(one.render(&ex, Unknown::Empty), Cow::Borrowed("a.test")));
    }

    #[test]
    fn captures_show_the_latest_match_that_has_the_group() {
        let mut ex = exchange("GET", "/", &[]);
        for (name, groups) in [("a", vec!["0", "1", "2"]), ("b", vec!["x", "y"])] {
            ex.captures.push(crate::http::exchange::Captures {
                name: name.into(),
                groups: groups.into_iter().map(String::from).collect(),
                named: vec![("word".into(), name.into())],
            });
        }
        let text =
            "{http.regexp.a.1}{http.regexp.1}{http.regexp.2}{http.regexp.word}{http.regexp.a.word}{http.regexp.b.2}";
        assert_eq!(Template::parse(text).render(&ex, Unknown::Empty), "1y2ba");
    }

    #[test]
    fn debug_shows_no_value_of_the_environment() {
        let shown = format!("{:?}", Template::parse("{env.PATH}"));
        assert_eq!(shown, "Template(\"{env.PATH}\")");
    }
}
