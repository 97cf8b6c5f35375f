//! Whether a certificate for a name may be had: asked of an address that the admin gave.

use super::endpoint::Endpoint;

/// Of an answer to a question of yes or no nothing more is read.
const MAX_ANSWER: usize = 64 << 10;

/// `ask URL`, `permission http URL`.
#[derive(Debug, PartialEq)]
pub struct Permission {
    endpoint: Endpoint,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    /// Nobody was there to say: why.
    Unknown(String),
}

impl Permission {
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(url: &str) -> Result<Self, String> {
        Ok(Self { endpoint: Endpoint::parse(url)? })
    }

    /// Any 2xx is a yes, as in Caddy. A server that fails, and a redirect, which is not followed, say neither yes nor no.
    pub async fn ask(&self, name: &str) -> Answer {
        match self.endpoint.get(&[("domain", name)], MAX_ANSWER).await {
            Ok((status, _)) if status.is_success() => Answer::Yes,
            Ok((status, _)) if status.is_redirection() => {
                Answer::Unknown(format!("it answers {}, and redirects are not followed", status.as_u16()))
            }
            Ok((status, _)) if status.is_server_error() => Answer::Unknown(format!("it answers {}", status.as_u16())),
            Ok(_) => Answer::No,
            Err(error) => Answer::Unknown(error),
        }
    }
}
