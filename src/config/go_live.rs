//! What has to be opened or read before a configuration takes its first request.

/// Made when a configuration is compiled, which touches nothing; done when it is about to go live, also at a reload.
pub trait GoLive: Send + Sync {
    /// Blocks, away from requests. In the order in which the configuration asks for such things.
    ///
    /// # Errors
    /// Why the configuration cannot go live, for a person.
    fn go_live(&self) -> Result<(), String>;
}
