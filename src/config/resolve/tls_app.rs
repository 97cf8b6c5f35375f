//! The TLS app: certificate loaders and automation policies of all sites and of the global options.

use super::site::{Pairing, SiteInfo};
use crate::config::directive_cx::FileCx;
use crate::config::types::TlsApp;

/// Built after the servers, so that the blocks of each pairing are in their final order.
pub fn build(_pairings: &[Pairing], _sites: &[SiteInfo], _cx: &mut FileCx<'_>) -> TlsApp {
    TlsApp::default()
}
