//! TLS and HTTP/2 against a hyper origin.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::base::error::{Kind, ProxyError};

#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// An origin that counts its connections.
struct Hyper {
    port: u16,
    certificate: Vec<u8>,
    connections: Rc<Cell<usize>>,
}

#[derive(Copy, Clone)]
struct Manner {
    tls: Option<&'static [&'static str]>,
    h2: bool,
    max_streams: u32,
}

impl Hyper {
    async fn new<S, F>(manner: Manner, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let made = rcgen::generate_simple_self_signed(vec!["up.test".to_owned()]).unwrap();
        let certificate = made.cert.pem().into_bytes();
        let acceptor = manner.tls.map(|alpn| {
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let mut config =
                ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![made.cert.der().clone()], key)
                    .unwrap();
            config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
            TlsAcceptor::from(Arc::new(config))
        });
        let connections = Rc::new(Cell::new(0));
        let counter = Rc::clone(&connections);
        tokio::task::spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counter.set(counter.get() + 1);
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::task::spawn_local(async move {
                    match acceptor {
                        None => serve(tcp, manner, service).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                serve(tls, manner, service).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, certificate, connections }
    }

    fn options(&self, scheme: Scheme) -> TargetOptions {
        let mut options = TargetOptions::new(scheme, Address::Tcp { host: "127.0.0.1".into(), port: self.port });
        options.server_name = Some("up.test".into());
        let trust = Trust::Only(vec![RootSource::Pem(self.certificate.clone())]);
        let tls = TlsClientOptions { trust, ..Default::default() };
        options.tls = Some(tls.build(Versions::default()).unwrap());
        options
    }

    fn target(&self, scheme: Scheme) -> Target {
        Target::new(self.options(scheme)).unwrap()
    }
}

async fn serve<S, F>(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    manner: Manner,
    service: S,
) where
    S: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<Body>> + 'static,
{
    let service = service_fn(move |request| {
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(io);
    let _ = if manner.h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(Local);
        builder.max_concurrent_streams(manner.max_streams).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

const H2_TLS: Manner = Manner { tls: Some(&["h2", "http/1.1"]), h2: true, max_streams: 200 };
const H1_TLS: Manner = Manner { tls: Some(&["http/1.1"]), h2: false, max_streams: 0 };
const H2C: Manner = Manner { tls: None, h2: true, max_streams: 200 };

/// Says what it saw and sends back the body.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let seen = format!(
        "{:?} {} {} host={:?} ",
        request.version(),
        request.method(),
        request.uri(),
        request.headers().get("host")
    );
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Response::new(Body::from([seen.as_bytes(), &body].concat().into_iter().collect::<Bytes>()))
}

#[test]
fn many_requests_share_one_connection() {
    local(async {
        let origin = Hyper::new(H2_TLS, echo).await;
        let target = origin.target(Scheme::Https);
        let all = (0..50).map(|_| {
            let target = &target;
            async move { text(go(target, post("body")).await.unwrap().response).await }
        });
        let mut set = Vec::new();
        for one in all {
            set.push(Box::pin(one));
        }
        for body in join_all(set).await {
            assert_eq!(body, "HTTP/2.0 POST https://up.test/p host=None body");
        }
        assert_eq!(origin.connections.get(), 1);
        assert!(go(&target, get("/")).await.unwrap().reused);
    });
}

async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = std::pin::Pin::new(future).poll(cx)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[test]
fn prior_knowledge_without_tls() {
    local(async {
        let origin = Hyper::new(H2C, echo).await;
        let body = text(go(&origin.target(Scheme::H2c), get("/x?y=1")).await.unwrap().response).await;
        assert_eq!(body, "HTTP/2.0 GET http://up.test/x?y=1 host=None ");
    });
}

#[test]
fn alpn_falls_back_to_http1() {
    local(async {
        let origin = Hyper::new(H1_TLS, echo).await;
        let target = origin.target(Scheme::Https);
        for reused in [false, true] {
            let sent = go(&target, get("/x")).await.unwrap();
            assert_eq!(sent.reused, reused);
            assert_eq!(text(sent.response).await, "HTTP/1.1 GET /x host=Some(\"up.test\") ");
        }
        let many = (0..5).map(|_| Box::pin(go(&target, get("/x")))).collect();
        for sent in join_all(many).await {
            text(sent.unwrap().response).await;
        }
        assert!(origin.connections.get() > 1);
    });
}

#[test]
fn an_upgrade_gets_an_http1_connection_of_an_http2_upstream() {
    local(async {
        let origin = Hyper::new(Manner { h2: false, ..H2_TLS }, echo).await; // takes HTTP/2 by ALPN, would not speak it
        let target = origin.target(Scheme::Https);
        let mut request = get("/ws");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        let sent = go(&target, request).await.unwrap();
        assert!(text(sent.response).await.starts_with("HTTP/1.1 GET /ws"));
    });
}

#[test]
fn an_upstream_without_http2_is_refused_if_nothing_else_is_allowed() {
    local(async {
        let origin = Hyper::new(H1_TLS, echo).await;
        let mut options = origin.options(Scheme::Https);
        options.versions = Versions { h1: false, h2: true };
        let error = go(&Target::new(options).unwrap(), get("/")).await.unwrap_err().error;
        assert_eq!(error.kind, Kind::TlsFailed);
    });
}

#[test]
fn certificates_are_checked() {
    local(async {
        let origin = Hyper::new(H1_TLS, echo).await;
        let mut wrong_name = origin.options(Scheme::Https);
        wrong_name.server_name = Some("other.test".into());
        let mut system = origin.options(Scheme::Https);
        system.tls = None;
        for options in [wrong_name, system] {
            let failed = go(&Target::new(options).unwrap(), get("/")).await.unwrap_err();
            assert_eq!(failed.error.kind, Kind::TlsFailed);
            assert!(failed.request.is_some());
        }
        let mut insecure = origin.options(Scheme::Https);
        let skip = TlsClientOptions { insecure_skip_verify: true, ..Default::default() };
        insecure.tls = Some(skip.build(Versions::default()).unwrap());
        insecure.server_name = Some("other.test".into());
        assert!(go(&Target::new(insecure).unwrap(), get("/")).await.is_ok());
    });
}

#[test]
fn a_stream_limit_opens_a_second_connection() {
    local(async {
        let endless = |_: Request<Incoming>| async {
            let (feed, body) = fed();
            feed.send(data("x")).unwrap();
            tokio::task::spawn_local(async move { feed.closed().await });
            Response::new(body)
        };
        let origin = Hyper::new(Manner { max_streams: 1, ..H2C }, endless).await;
        let target = origin.target(Scheme::H2c);
        let mut first = go(&target, get("/")).await.unwrap().response.into_body();
        first.frame().await.unwrap().unwrap();
        let second = go(&target, get("/")).await.unwrap();
        assert!(!second.reused);
        assert_eq!(origin.connections.get(), 2);
    });
}

#[test]
fn dropping_a_response_resets_its_stream_and_no_other() {
    local(async {
        let gone = Rc::new(tokio::sync::Notify::new());
        let told = Rc::clone(&gone);
        let endless = move |request: Request<Incoming>| {
            let told = Rc::clone(&told);
            async move {
                if request.uri().path() == "/short" {
                    return Response::new(Body::from("short"));
                }
                let (feed, body) = fed();
                feed.send(data("x")).unwrap();
                tokio::task::spawn_local(async move {
                    feed.closed().await;
                    told.notify_one();
                });
                Response::new(body)
            }
        };
        let origin = Hyper::new(H2_TLS, endless).await;
        let target = origin.target(Scheme::Https);
        let mut body = go(&target, get("/")).await.unwrap().response.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        gone.notified().await;
        assert_eq!(text(go(&target, get("/short")).await.unwrap().response).await, "short");
        assert_eq!(origin.connections.get(), 1);
    });
}

#[test]
fn dropping_a_request_before_its_head_resets_it_and_its_upload() {
    struct Told(Rc<tokio::sync::Notify>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    local(async {
        let started = Rc::new(tokio::sync::Notify::new());
        let gone = Rc::new(tokio::sync::Notify::new());
        let (s, g) = (Rc::clone(&started), Rc::clone(&gone));
        let never = move |_request: Request<Incoming>| {
            let told = Told(Rc::clone(&g));
            s.notify_one();
            async move {
                let _told = told;
                std::future::pending::<Response<Body>>().await
            }
        };
        let origin = Hyper::new(H2C, never).await;
        let target = origin.target(Scheme::H2c);
        let (feed, body) = fed();
        for request in [get("/"), post(body)] {
            let mut request = Box::pin(go(&target, request));
            tokio::select! {
                _ = &mut request => unreachable!("nothing answers"),
                () = started.notified() => {}
            }
            drop(request);
            gone.notified().await;
        }
        feed.closed().await;
    });
}

#[test]
fn trailers_both_ways() {
    local(async {
        let service = |request: Request<Incoming>| async {
            let trailers = request.into_body().collect().await.unwrap().trailers().cloned().unwrap();
            let (feed, body) = fed();
            feed.send(data("ok")).unwrap();
            feed.send(Frame::trailers(trailers)).unwrap();
            Response::new(body)
        };
        let origin = Hyper::new(H2C, service).await;
        let (feed, body) = fed();
        feed.send(data("x")).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        feed.send(Frame::trailers(trailers)).unwrap();
        drop(feed);
        let sent = go(&origin.target(Scheme::H2c), post(body)).await.unwrap();
        let answer = sent.response.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-sum"], "1");
    });
}

#[test]
fn timeouts_hold_for_streams_too() {
    local(async {
        let stalls = |request: Request<Incoming>| async move {
            if request.uri().path() == "/head" {
                return std::future::pending().await;
            }
            let (feed, body) = fed();
            feed.send(data("x")).unwrap();
            tokio::task::spawn_local(async move { feed.closed().await });
            Response::new(body)
        };
        let origin = Hyper::new(H2C, stalls).await;
        let mut options = origin.options(Scheme::H2c);
        options.timeouts.read = Some(Duration::from_millis(100));
        let target = Target::new(options).unwrap();
        assert_eq!(go(&target, get("/head")).await.unwrap_err().error.kind, Kind::ResponseTimeout);
        let mut body = go(&target, get("/body")).await.unwrap().response.into_body();
        body.frame().await.unwrap().unwrap();
        let error: ProxyError = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind, Kind::ReadTimeout);
        assert_eq!(origin.connections.get(), 1, "a stream that timed out does not cost the connection");
    });
}

/// An HTTP/2 origin that answers the first request and refuses the second in one of two ways; a second connection
/// serves all.
async fn refusing(listener: TcpListener, by_goaway: bool) {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut first = ::h2::server::handshake(tcp).await.unwrap();
    let (_, mut answer) = first.accept().await.unwrap().unwrap();
    answer.send_response(Response::new(()), true).unwrap();
    let refused = async {
        if by_goaway {
            first.graceful_shutdown();
            while let Some(Ok((_, mut answer))) = first.accept().await {
                let _ = answer.send_response(Response::new(()), true);
            }
        } else {
            let (_, mut answer) = first.accept().await.unwrap().unwrap();
            answer.send_reset(::h2::Reason::REFUSED_STREAM);
            while first.accept().await.is_some() {}
        }
    };
    let second = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = ::h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            answer.send_response(Response::builder().status(201).body(()).unwrap(), true).unwrap();
        }
    };
    tokio::join!(refused, second);
}

#[test]
fn a_refused_stream_is_sent_again_whatever_its_method() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(refusing(listener, false));
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let target = Target::new(TargetOptions::new(Scheme::H2c, address)).unwrap();
        assert_eq!(go(&target, get("/")).await.unwrap().response.status(), 200);
        let sent = go(&target, post("paid once")).await.unwrap();
        assert_eq!(sent.response.status(), 201);
        assert!(!sent.reused);
    });
}

#[test]
fn a_connection_that_says_goodbye_takes_no_new_request() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(refusing(listener, true));
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let target = Target::new(TargetOptions::new(Scheme::H2c, address)).unwrap();
        assert_eq!(go(&target, get("/")).await.unwrap().response.status(), 200);
        tokio::time::sleep(Duration::from_millis(20)).await; // the GOAWAY arrives, the connection stays open
        assert_eq!(go(&target, post("x")).await.unwrap().response.status(), 201);
    });
}

/// Reads frames behind the client's preface until one opens a stream.
async fn a_stream_is_opened(peer: &mut TcpStream) {
    const HEADERS: u8 = 1;
    let mut preface = [0; 24];
    peer.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        peer.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        peer.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            return;
        }
    }
}

#[test]
fn a_request_above_the_last_that_a_goodbye_names_is_sent_again() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// Last stream 0, no error.
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut first, _) = listener.accept().await.unwrap();
            first.write_all(&SETTINGS).await.unwrap();
            a_stream_is_opened(&mut first).await;
            first.write_all(&GOAWAY).await.unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            let mut second = ::h2::server::handshake(tcp).await.unwrap();
            let (request, mut answer) = second.accept().await.unwrap().unwrap();
            assert_eq!(request.method(), "POST");
            answer.send_response(Response::builder().status(201).body(()).unwrap(), true).unwrap();
            while second.accept().await.is_some() {}
        };
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let target = Target::new(TargetOptions::new(Scheme::H2c, address)).unwrap();
        tokio::select! {
            () = server => panic!("the server ends first"),
            sent = go(&target, post("paid once")) => assert_eq!(sent.unwrap().response.status(), 201),
        }
    });
}

#[test]
fn a_silent_connection_is_left_alone() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.scheme = Scheme::H2c;
        options.timeouts.response_header = Some(Duration::from_millis(50));
        let target = Target::new(options).unwrap();
        let (result, _peer) = tokio::join!(go(&target, get("/")), origin.accept());
        assert_eq!(result.unwrap_err().error.kind, Kind::ResponseTimeout);
        assert_eq!(idle_count(&target), 0, "the next request makes its own");
    });
}

#[test]
fn the_simple_client_speaks_it_too() {
    local(async {
        let origin = Hyper::new(H2_TLS, |_| async { Response::new(Body::from("fine")) }).await;
        let request = Request::get("/health").header("host", "up.test").body(Bytes::new()).unwrap();
        let target = origin.target(Scheme::Https);
        let answer = simple::request(&target, request, 100, Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.body(), "fine");
    });
}

#[test]
fn a_host_that_is_no_authority_is_refused() {
    local(async {
        let origin = Hyper::new(H2C, echo).await;
        let request = Request::get("/").header("host", "a b").body(Body::Empty).unwrap();
        let error = go(&origin.target(Scheme::H2c), request).await.unwrap_err().error;
        assert_eq!(error.kind, Kind::ClientBody);
    });
}
