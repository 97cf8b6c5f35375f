//! The merged list of all sources, kept for a while and fetched anew by one request at a time.
//!
//! Shared by the workers. A fetch is a task of its own, so that a client that leaves does not end it for the others.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::list::List;
use super::source;
use crate::http::error::HandlerError;
use crate::http::exchange::ServerFacts;
use crate::http::handler::LocalFuture;
use crate::http::route::RouteList;
use crate::llm::model_list::Entry;

/// How long a list with a source missing is kept, at most.
const RETRY: Duration = Duration::from_secs(10);

pub struct Catalogue {
    sources: Box<[RouteList]>,
    /// Models of the file: first in the list.
    own: List,
    /// Zero = not kept.
    keep: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    list: Option<List>,
    fresh_until: Option<Instant>,
    /// What each source said last.
    told: Vec<Option<Vec<Entry>>>,
    /// The fetch that is under way.
    flight: Option<watch::Receiver<Option<Landed>>>,
}

/// How a fetch ended: the list, or the status and text of the first failure.
type Landed = Result<List, (u16, String)>;

impl Catalogue {
    pub fn new(sources: Vec<RouteList>, own: List, keep: Duration) -> Self {
        let mut state = State { told: sources.iter().map(|_| None).collect(), ..State::default() };
        if sources.is_empty() {
            state.list = Some(own.clone());
        }
        Self { sources: sources.into(), own, keep, state: Mutex::new(state) }
    }

    /// The list: fresh, or the last one while a new one is fetched. Waits only when there is none.
    ///
    /// # Errors
    /// What the first source failed with, when none has answered yet.
    pub async fn get(self: &Arc<Self>, server: &Rc<ServerFacts>) -> Result<List, HandlerError> {
        let mut flight = {
            let mut state = self.state();
            let fresh = self.sources.is_empty() || state.fresh_until.is_some_and(|until| Instant::now() < until);
            if let (true, Some(list)) = (fresh, &state.list) {
                return Ok(list.clone());
            }
            let flight = match &state.flight {
                Some(flight) => flight.clone(),
                None => self.take_off(&mut state, server),
            };
            match &state.list {
                Some(stale) if !self.keep.is_zero() => return Ok(stale.clone()),
                _ => flight,
            }
        };
        match flight.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(list))) => Ok(list.clone()),
            Ok(Some(Err((status, why)))) => Err(HandlerError::new(*status, super::HANDLER.id, why.clone())),
            Ok(None) | Err(_) => Err(HandlerError::new(503, super::HANDLER.id, "the list of models is not there yet")),
        }
    }

    fn take_off(self: &Arc<Self>, state: &mut State, server: &Rc<ServerFacts>) -> watch::Receiver<Option<Landed>> {
        let (send, receive) = watch::channel(None);
        state.flight = Some(receive.clone());
        let flight = Flight { catalogue: Arc::clone(self), send };
        let server = Rc::clone(server);
        tokio::task::spawn_local(async move { flight.fly(&server).await });
        receive
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the sources said.
    fn land(&self, answers: Vec<Result<Vec<Entry>, HandlerError>>) -> Landed {
        let mut state = self.state();
        let mut failure = None;
        for (i, (told, answer)) in state.told.iter_mut().zip(answers).enumerate() {
            match answer {
                Ok(entries) => *told = Some(entries),
                Err(error) => {
                    let (status, why) = (error.status, error.message.into_owned());
                    tracing::warn!(source = i, status, error = %why, "a source of models failed");
                    failure = failure.or(Some((status, why)));
                }
            }
        }
        let keep = if failure.is_some() { self.keep.min(RETRY) } else { self.keep };
        state.fresh_until = Some(Instant::now() + keep);
        if let Some(failure) = failure
            && state.told.iter().all(Option::is_none)
        {
            return Err(failure);
        }
        let told = state.told.iter().flatten().flatten();
        let list = List::of(self.own.entries().iter().chain(told).cloned());
        state.list = Some(list.clone());
        Ok(list)
    }
}

/// A fetch under way; when it ends without landing, with its worker, the next request begins another.
struct Flight {
    catalogue: Arc<Catalogue>,
    send: watch::Sender<Option<Landed>>,
}

impl Flight {
    async fn fly(self, server: &Rc<ServerFacts>) {
        let asked: Vec<LocalFuture<'_, _>> = (self.catalogue.sources.iter())
            .map(|routes| Box::pin(source::ask(routes, server)) as LocalFuture<'_, _>)
            .collect();
        let landed = self.catalogue.land(all(asked).await);
        self.send.send_replace(Some(landed));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.catalogue.state().flight = None;
    }
}

/// Runs all at once; the results in order.
async fn all<T>(futures: Vec<LocalFuture<'_, T>>) -> Vec<T> {
    let mut running: Vec<Option<LocalFuture<'_, T>>> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (slot, result) in running.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let Poll::Ready(value) = Pin::new(future).poll(cx)
            {
                *result = Some(value);
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
