//! The access log of a server.

/// Which requests are logged where.
#[derive(Debug, Default)]
pub struct AccessLogs {}

impl AccessLogs {
    /// Whether any request of this server may be logged.
    #[must_use]
    pub fn is_on(&self) -> bool {
        false
    }
}
