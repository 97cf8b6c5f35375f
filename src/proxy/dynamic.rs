//! Upstreams that are looked up while requests come: the addresses of a name, the places of a service, or several such
//! lists one after the other.
//!
//! ```text
//! request ─▶ name of the lookup ─▶ answer kept for all handlers (`names`) ─▶ list of upstreams kept for this handler
//!                                    │ none, or no longer good (`freshness`)
//!                                    └─▶ one lookup, for which all who need it wait
//! ```

mod freshness;
mod names;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use self::names::{Answer, Entry};
use super::breaker;
use super::engine::Engine;
use super::upstream::{Settings, TransportTemplate, Upstream};
use crate::http::exchange::Exchange;
use crate::http::placeholder::{Template, Unknown};

/// Lists that one handler keeps; a stranger may choose the name, where it is made of placeholders.
const MAX_LISTS: usize = 100;

/// The lists of one handler.
pub struct Dynamic {
    sources: Box<[Known]>,
    pub found: Found,
    lists: Mutex<HashMap<Box<str>, List>>,
}

/// What the upstreams of all lists have in common.
pub struct Found {
    pub transport: Arc<TransportTemplate>,
    /// `Host` names the upstream, not what the client asked for.
    pub names_host: bool,
    /// Requests at once beyond which an upstream is full.
    pub max_requests: Option<usize>,
    pub breaker: Option<Arc<breaker::Settings>>,
}

pub struct Source {
    pub lookup: Lookup,
    pub options: SourceOptions,
}

pub enum Lookup {
    /// A and AAAA records, with one port.
    Addresses { name: Template, port: Template, families: Families },
    /// SRV records.
    Services { name: Template },
}

/// Which addresses are asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Longest time that an answer is used.
    pub refresh: Duration,
    /// How long the last answer is used on when there is no new one, before it is asked for again; zero = not at all.
    pub grace: Duration,
    /// DNS servers; none = the system's.
    pub servers: Arc<[SocketAddr]>,
    /// For one server to answer.
    pub timeout: Option<Duration>,
}

/// A source, and its answer's place where the name does not change from request to request.
struct Known {
    source: Source,
    fixed: Option<Arc<Entry>>,
}

struct List {
    /// What it was made of.
    answers: Answers,
    upstreams: Arc<[Upstream]>,
}

type Answers = SmallVec<[Option<Arc<Answer>>; 2]>;

/// The upstreams of a request: the handler's own, or a list that was looked up.
pub enum Listed<'e> {
    Fixed(&'e [Upstream]),
    Found(Arc<[Upstream]>),
}

impl Deref for Listed<'_> {
    type Target = [Upstream];
    fn deref(&self) -> &[Upstream] {
        match self {
            Self::Fixed(upstreams) => upstreams,
            Self::Found(upstreams) => upstreams,
        }
    }
}

impl Engine {
    /// The upstreams for this request; `anew` after one of them failed it.
    pub(super) async fn listed(&self, ex: &Exchange, anew: bool) -> Listed<'_> {
        let Some(dynamic) = &self.dynamic else { return Listed::Fixed(&self.upstreams) };
        dynamic.list(ex, anew).await.map_or(Listed::Fixed(&self.upstreams), Listed::Found)
    }
}

impl Dynamic {
    #[must_use]
    pub fn new(sources: Vec<Source>, found: Found) -> Self {
        let known = |source: Source| {
            let fixed = source.fixed_question().map(|question| names::entry(&question));
            Known { source, fixed }
        };
        let sources = sources.into_iter().map(known).collect();
        Self { sources, found, lists: Mutex::default() }
    }

    /// The upstreams for this request; `None` when no source has an answer. `anew`: an upstream of the list just failed,
    /// so an answer that is not brand-new is asked for again.
    pub async fn list(&self, ex: &Exchange, anew: bool) -> Option<Arc<[Upstream]>> {
        let mut key = String::new();
        let mut answers = Answers::new();
        for Known { source, fixed } in &self.sources {
            let answer = match fixed {
                Some(entry) => names::answer(entry, anew).await,
                None => match source.question(ex) {
                    Some(question) => {
                        key.push_str(&question.key());
                        key.push('\n');
                        names::answer(&names::entry(&question), anew).await
                    }
                    None => None,
                },
            };
            answers.push(answer);
        }
        answers.iter().any(Option::is_some).then(|| self.upstreams(&key, answers))
    }

    /// The list for these answers, made anew where they changed.
    fn upstreams(&self, key: &str, answers: Answers) -> Arc<[Upstream]> {
        {
            let lists = self.lists();
            if let Some(list) = lists.get(key).filter(|list| same(&list.answers, &answers)) {
                return Arc::clone(&list.upstreams);
            }
        }
        // Made before the old list goes, so that what is known about an address that stays is adopted.
        let upstreams: Arc<[Upstream]> = answers
            .iter()
            .flatten()
            .flat_map(|answer| answer.dials.iter())
            .filter_map(|dial| self.found.upstream(dial))
            .collect();
        let mut lists = self.lists();
        if lists.len() >= MAX_LISTS && !lists.contains_key(key) {
            // Any will do: those in use are asked for again.
            if let Some(old) = lists.keys().next().cloned() {
                lists.remove(&old);
            }
        }
        lists.insert(key.into(), List { answers, upstreams: Arc::clone(&upstreams) });
        upstreams
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn upstream(&self, dial: &str) -> Option<Upstream> {
        let Self { transport, names_host, max_requests, breaker } = self;
        let own = Settings { max_requests: *max_requests, names_host: *names_host, ..Settings::default() };
        let mut upstream = Upstream::new(dial, transport, own).ok()?;
        if let Some(settings) = breaker {
            upstream.protect(settings);
        }
        Some(upstream)
    }
}

fn same(one: &Answers, other: &Answers) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        })
}

/// One lookup, all placeholders filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Addresses { name: Box<str>, port: u16, families: Families },
    Services { name: Box<str> },
}

#[derive(Clone, Debug)]
pub(super) struct Question {
    asked: Asked,
    options: SourceOptions,
}

impl Question {
    /// All that two lookups must agree on to share an answer.
    fn key(&self) -> String {
        let Self { asked, options } = self;
        format!("{asked:?} {options:?}")
    }
}

impl Source {
    fn fixed_question(&self) -> Option<Question> {
        match &self.lookup {
            Lookup::Addresses { name, port, families } => {
                self.addresses(name.as_static()?, port.as_static()?, *families)
            }
            Lookup::Services { name } => self.services(name.as_static()?),
        }
    }

    /// `None` when the request makes no name or port of it.
    fn question(&self, ex: &Exchange) -> Option<Question> {
        match &self.lookup {
            Lookup::Addresses { name, port, families } => {
                self.addresses(&name.render(ex, Unknown::Empty), &port.render(ex, Unknown::Empty), *families)
            }
            Lookup::Services { name } => self.services(&name.render(ex, Unknown::Empty)),
        }
    }

    fn addresses(&self, name: &str, port: &str, families: Families) -> Option<Question> {
        let port = port.parse().ok()?;
        let asked = may_be_name(name).then(|| Asked::Addresses { name: name.into(), port, families })?;
        Some(Question { asked, options: self.options.clone() })
    }

    fn services(&self, name: &str) -> Option<Question> {
        let asked = may_be_name(name).then(|| Asked::Services { name: name.into() })?;
        Some(Question { asked, options: self.options.clone() })
    }
}

/// A host name or an address: what is not is never asked for, whoever wrote it.
fn may_be_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    !text.is_empty() && text.len() <= 254 && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::dns::testing::{A, NO_SUCH_NAME, SERVER_FAILED, SRV, Said, serve};
    use crate::client::{Address, Scheme, TargetOptions};
    use crate::proxy::testing::{block_on, exchange};
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
    use std::task::Poll;

    /// A server whose answers are told by `mode`, and how often it was asked.
    struct Server {
        at: SocketAddr,
        mode: Arc<AtomicU8>,
        asked: Arc<AtomicUsize>,
    }

    fn server() -> Server {
        let (mode, asked) = (Arc::new(AtomicU8::new(1)), Arc::new(AtomicUsize::new(0)));
        let (said, count) = (Arc::clone(&mode), Arc::clone(&asked));
        let at = serve((Ipv4Addr::LOCALHOST, 0), move |name, kind| {
            count.fetch_add(1, Ordering::SeqCst);
            let mode = said.load(Ordering::SeqCst);
            match (name, kind) {
                _ if mode == 0 => Err(SERVER_FAILED),
                ("a.test" | "b.test", A) => {
                    Ok((1..=mode).map(|n| Said::Address(Ipv4Addr::new(127, 0, 0, n))).collect())
                }
                ("_api._tcp.s.test", SRV) => {
                    Ok(vec![Said::Service(2, 1, 9002, "two.s.test"), Said::Service(1, 1, 9001, "one.s.test")])
                }
                ("a.test" | "b.test", _) => Ok(Vec::new()),
                _ => Err(NO_SUCH_NAME),
            }
        });
        Server { at, mode, asked }
    }

    impl Server {
        fn options(&self, refresh: Duration, grace: Duration) -> SourceOptions {
            let timeout = Some(Duration::from_secs(2));
            SourceOptions { refresh, grace, servers: Arc::new([self.at]), timeout }
        }

        fn a(&self, name: &str, refresh: Duration, grace: Duration) -> Source {
            let families = Families { v4: true, v6: false };
            let (name, port) = (Template::parse(name), Template::parse("80"));
            Source { lookup: Lookup::Addresses { name, port, families }, options: self.options(refresh, grace) }
        }

        fn srv(&self) -> Source {
            let options = self.options(Duration::from_mins(1), Duration::ZERO);
            Source { lookup: Lookup::Services { name: Template::parse("_api._tcp.s.test.") }, options }
        }
    }

    fn dynamic(sources: Vec<Source>) -> Dynamic {
        let options = TargetOptions::new(Scheme::Http, Address::Tcp { host: "".into(), port: 0 });
        let transport =
            TransportTemplate { options, scheme: Scheme::Http, except_ports: Vec::new(), server_name: None };
        let found = Found { transport: Arc::new(transport), names_host: false, max_requests: None, breaker: None };
        Dynamic::new(sources, found)
    }

    fn names(list: Option<Arc<[Upstream]>>) -> Option<Vec<String>> {
        list.map(|list| list.iter().map(|upstream| upstream.name.to_string()).collect())
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn one_answer_serves_many_requests_and_handlers() {
        block_on(async {
            let server = server();
            server.mode.store(2, Ordering::SeqCst);
            let source = || server.a("a.test.", MINUTE, Duration::ZERO);
            let (one, other) = (dynamic(vec![source()]), dynamic(vec![source()]));
            let ex = exchange("GET", "/");
            let (first, second, third) =
                tokio::join!(one.list(&ex, false), one.list(&ex, false), other.list(&ex, false));
            assert_eq!(names(first.clone()).unwrap(), ["127.0.0.1:80", "127.0.0.2:80"]);
            assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
            assert_eq!(third.unwrap().len(), 2);
            one.list(&ex, true).await.unwrap();
            assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn services_come_by_priority_and_lists_one_after_the_other() {
        block_on(async {
            let server = server();
            let a = || server.a("a.test.", MINUTE, Duration::ZERO);
            let both = dynamic(vec![server.srv(), a()]);
            let list = names(both.list(&exchange("GET", "/"), false).await).unwrap();
            assert_eq!(list, ["one.s.test.:9001", "two.s.test.:9002", "127.0.0.1:80"]);
            let half = dynamic(vec![server.a("nobody.test.", MINUTE, Duration::ZERO), a()]);
            assert_eq!(names(half.list(&exchange("GET", "/"), false).await).unwrap(), ["127.0.0.1:80"]);
            let none = dynamic(vec![server.a("nobody.test.", MINUTE, Duration::ZERO)]);
            assert!(none.list(&exchange("GET", "/"), false).await.is_none());
        });
    }

    #[test]
    fn a_name_made_of_a_request_is_held_to_what_a_name_is() {
        block_on(async {
            let server = server();
            let source = server.a("{http.request.uri.query.n}", MINUTE, Duration::ZERO);
            let dynamic = dynamic(vec![source]);
            assert!(dynamic.list(&exchange("GET", "/?n=b.test."), false).await.is_some());
            for bad in ["/", "/?n=", "/?n=a%0ab", "/?n=a/b", "/?n=a%20b"] {
                assert!(dynamic.list(&exchange("GET", bad), false).await.is_none(), "{bad}");
            }
            assert_eq!(server.asked.load(Ordering::SeqCst), 1);
            for n in 0..MAX_LISTS + 5 {
                dynamic.upstreams(&format!("{n}"), Answers::new());
            }
            assert_eq!(dynamic.lists().len(), MAX_LISTS);
        });
    }

    #[test]
    fn a_lookup_that_is_given_up_by_one_serves_the_next() {
        block_on(async {
            let server = server();
            let dynamic = dynamic(vec![server.a("b.test.", MINUTE, Duration::ZERO)]);
            let ex = exchange("GET", "/");
            // Polled once: the lookup has begun, and its asker goes away.
            let mut gone = Box::pin(dynamic.list(&ex, false));
            let began = std::future::poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx).is_pending())).await;
            assert!(began);
            drop(gone);
            assert!(dynamic.list(&ex, false).await.is_some());
            assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        });
    }
}
