//! Room 5: the reverse-proxy engine. Owns: which upstream gets a request (balancing, health, retries), what the
//! request and the response look like on the way (hop-by-hop headers, forwarding headers), upgrades, and the state of
//! upstreams that outlives a reload. Must not know: how any of it is written in a configuration.
//!
//! ```text
//! Exchange ─▶ Engine::call ─▶ choose an upstream ─▶ build the request ─▶ client::send
//!                  ▲  failed, may try again │                               │
//!                  └────────────────────────┘                               ▼
//!            response ◀─ header ops ◀─ handle_response routes ◀─ health ◀─ head
//! ```

pub mod active_check;
mod again;
mod answer;
mod attempt;
mod body;
pub mod breaker;
mod by_model;
mod candidates;
pub mod cooldown;
pub mod counters;
pub mod dynamic;
mod engine;
mod event_stream;
mod ewma;
mod hash;
pub mod health;
mod outgoing;
mod passive;
pub mod policy;
mod quota;
mod rendezvous;
mod replay;
pub mod retry;
pub mod state;
pub mod status;
pub mod sticky;
#[cfg(test)]
mod testing;
mod tried;
mod upgrade;
pub mod upstream;
mod uptime;

pub use cooldown::Cooldown;
pub use engine::{Buffer, Engine};
pub use event_stream::StreamRules;
pub use passive::Passive;
pub use policy::Policy;
pub use retry::RetryRules;
pub use upstream::{TransportTemplate, Upstream};
