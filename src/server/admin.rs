//! The admin endpoint over HTTP: `GET /reverse_proxy/upstreams` and `GET /metrics`, where the file asks for one. It only
//! tells; commands come over the control socket.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::listeners::{self, BindError, ListenSocket};
use super::metrics;
use super::worker::{Accepted, Listener};
use crate::compile::admin::Admin;
use crate::proxy::status;

/// Connections at once; a further one waits.
const MAX_CONNECTIONS: usize = 32;
/// Longest life of a connection.
const LIFE: Duration = Duration::from_mins(1);
const MAX_HEAD: usize = 64 << 10;

/// The endpoint of the running configuration.
#[derive(Default)]
pub struct Endpoint {
    open: Option<Open>,
}

struct Open {
    socket: Arc<ListenSocket>,
    accepting: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Endpoint {
    /// The socket of the next configuration: the open one, or one newly bound.
    pub fn prepare(&self, next: Option<&Admin>) -> Result<Option<Arc<ListenSocket>>, BindError> {
        let Some(next) = next else { return Ok(None) };
        match &self.open {
            Some(open) if open.socket.address == next.listen => Ok(Some(Arc::clone(&open.socket))),
            _ => listeners::open(&next.listen).map(Some),
        }
    }

    /// Answers as this configuration says from now on. Requests under way are finished.
    pub fn apply(&mut self, next: Option<&Admin>, socket: Option<Arc<ListenSocket>>) {
        self.open = None;
        let (Some(next), Some(socket)) = (next, socket) else { return };
        let listener = match Listener::register(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(address = %socket.address, %error, "the admin endpoint cannot accept");
                return;
            }
        };
        tracing::info!(address = %socket.address, "admin endpoint");
        let accepting = tokio::task::spawn_local(accept(listener, Rc::new(next.clone())));
        self.open = Some(Open { socket, accepting });
    }
}

async fn accept(listener: Listener, admin: Rc<Admin>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Rc::clone(&admin);
        tokio::task::spawn_local(async move {
            match stream {
                Accepted::Tcp(stream) => match tokio::net::TcpStream::from_std(stream) {
                    Ok(stream) => serve(stream, admin).await,
                    Err(error) => tracing::debug!(%error, "admin connection"),
                },
                Accepted::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
                    Ok(stream) => serve(stream, admin).await,
                    Err(error) => tracing::debug!(%error, "admin connection"),
                },
            }
            drop(place);
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, admin: Rc<Admin>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let answer = answer(&request, &admin);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever is slow or idle for so long can come again.
    let _ = tokio::time::timeout(LIFE, connection).await;
}

fn answer<B>(request: &Request<B>, admin: &Admin) -> Response<Full<Bytes>> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let known = |host: &str| admin.hosts.iter().any(|known| known == host);
    // A name that somebody else points at this machine is not one of ours (DNS rebinding).
    if !admin.hosts.is_empty() && !known(host) {
        return refusal(StatusCode::FORBIDDEN, "host not allowed");
    }
    if admin.enforce_origin {
        let origin = text(header::ORIGIN).or_else(|| text(header::REFERER)).unwrap_or_default();
        let of = origin.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        if !known(of) {
            return refusal(StatusCode::FORBIDDEN, "client is not allowed to access from its origin");
        }
    }
    let tell: fn() -> Response<Full<Bytes>> = match request.uri().path() {
        "/reverse_proxy/upstreams" => {
            || json_answer(StatusCode::OK, serde_json::to_vec(&status::all()).unwrap_or_default())
        }
        "/metrics" => || answer_of(StatusCode::OK, metrics::CONTENT_TYPE, metrics::all().into_bytes()),
        _ => {
            let why = "not served: of the admin API there are GET /reverse_proxy/upstreams and GET /metrics; `llmproxy \
                       reload`, `stop` and `status` speak over the control socket";
            return refusal(StatusCode::NOT_FOUND, why);
        }
    };
    if request.method() != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    }
    tell()
}

fn refusal(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json_answer(status, json!({ "error": why }).to_string().into_bytes())
}

fn json_answer(status: StatusCode, mut body: Vec<u8>) -> Response<Full<Bytes>> {
    body.push(b'\n');
    answer_of(status, "application/json", body)
}

fn answer_of(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hosts: &[&str], enforce_origin: bool, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let listen = crate::compile::address::ListenAddr::Fd(9);
        let admin = Admin { listen, hosts: hosts.iter().map(ToString::to_string).collect(), enforce_origin };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(&request.body(()).unwrap(), &admin).status().as_u16()
    }

    #[test]
    fn who_asks_what() {
        let own = ("host", "localhost:2019");
        let ask = |method, path, headers: &[_]| status(&["localhost:2019"], false, method, path, headers);
        assert_eq!(ask("GET", "/reverse_proxy/upstreams", &[own]), 200);
        assert_eq!(ask("GET", "/reverse_proxy/upstreams?x", &[own]), 200);
        assert_eq!(ask("GET", "/metrics", &[own]), 200);
        assert_eq!(ask("GET", "/metrics", &[("host", "evil.test")]), 403);
        assert_eq!(ask("POST", "/reverse_proxy/upstreams", &[own]), 405);
        assert_eq!(ask("POST", "/load", &[own]), 404);
        assert_eq!(ask("GET", "/reverse_proxy/upstreams", &[("host", "evil.test")]), 403);
        assert_eq!(ask("GET", "/reverse_proxy/upstreams", &[]), 403);
        assert_eq!(status(&[], false, "GET", "/reverse_proxy/upstreams", &[]), 200);
    }

    #[test]
    fn an_origin_is_asked_for_only_where_it_is_enforced() {
        let own = ("host", "localhost:2019");
        let ask = |enforce, origin: &str| {
            status(&["localhost:2019"], enforce, "GET", "/reverse_proxy/upstreams", &[own, ("origin", origin)])
        };
        assert_eq!(ask(false, "http://evil.test"), 200);
        assert_eq!(ask(true, "http://evil.test"), 403);
        assert_eq!(ask(true, "http://localhost:2019"), 200);
        assert_eq!(status(&["localhost:2019"], true, "GET", "/reverse_proxy/upstreams", &[own]), 403);
    }
}
