//! Work beside requests, such as checking upstreams, for as long as a configuration runs.

use std::pin::Pin;
use std::sync::Arc;

/// A piece of such work. It is made when a configuration is compiled, begins when that goes live, and is dropped
/// wherever it waits when a configuration without it goes live.
pub trait Background: Send + Sync {
    /// Work of an equal identity that runs already goes on over a reload, in place of this.
    fn identity(&self) -> &str;

    /// Runs on a thread of its own kind, away from requests; must not block for long.
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>>;
}
