//! Room 5: certificates and TLS for listeners. Owns: which certificate and settings a client hello gets.
//! Must not know: HTTP routing, features.

use std::sync::Arc;

/// TLS of one server: chooses the settings for a client hello.
#[derive(Debug, Clone)]
pub struct ServerTls {
    default: Arc<rustls::ServerConfig>,
}

impl ServerTls {
    /// The settings for a server name (SNI).
    pub fn choose(&self, _server_name: Option<&str>) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.default)
    }
}
