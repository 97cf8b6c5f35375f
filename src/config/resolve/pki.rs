//! The PKI app: certificate authorities of the global options and of `acme_server` lines.

use serde_json::Value;

use super::site::{Pairing, SiteInfo};
use crate::config::directive_cx::FileCx;

/// `None` when there is nothing to say.
pub fn build(_pairings: &[Pairing], _sites: &[SiteInfo], _cx: &mut FileCx<'_>) -> Option<Value> {
    None
}
