//! The client against real sockets: origins that play by the book (hyper) and origins that do not (raw TCP).

mod cancel;
mod faults;
mod h2;
mod hostile;
mod limits;
mod proxies;
mod reuse;
mod transfer;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::base::body::Body;

/// Runs a test on a worker's kind of runtime. It may take 10 s.
fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async {
        let result = tokio::time::timeout(Duration::from_secs(10), test).await.expect("the test hangs");
        close_idle();
        result
    })
}

/// A listening raw origin.
struct Origin {
    listener: TcpListener,
    port: u16,
}

impl Origin {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    fn options(&self) -> TargetOptions {
        TargetOptions::new(Scheme::Http, Address::Tcp { host: "127.0.0.1".into(), port: self.port })
    }

    fn target(&self) -> Target {
        Target::new(self.options()).unwrap()
    }

    async fn accept(&self) -> Peer {
        Peer { stream: self.listener.accept().await.unwrap().0, read: Vec::new() }
    }
}

/// The origin's side of a connection.
struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    /// Reads until the bytes end with `end`; gives what came since the last call.
    async fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "closed while waiting for {end:?}");
        }
    }

    async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads a head, answers it with an empty 200.
    async fn serve(&mut self) -> String {
        let head = self.head().await;
        self.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        head
    }

    /// True once the client has closed; whatever it sent before is passed over.
    async fn is_closed_by_client(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let closed = async { while matches!(self.stream.read(&mut bytes).await, Ok(n) if n > 0) {} };
        tokio::time::timeout(Duration::from_secs(2), closed).await.is_ok()
    }
}

fn get(path: &'static str) -> Request<Body> {
    Request::get(path).header("host", "up.test").body(Body::Empty).unwrap()
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/p").header("host", "up.test").body(body.into()).unwrap()
}

async fn go(target: &Target, request: Request<Body>) -> Result<Sent, SendError> {
    send(target, request, SendOptions::default()).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A body fed by the test; `None` ends it.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<http_body::Frame<Bytes>>, Body) {
    struct Fed(tokio::sync::mpsc::UnboundedReceiver<http_body::Frame<Bytes>>);
    impl http_body::Body for Fed {
        type Data = Bytes;
        type Error = crate::base::error::ProxyError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    (tx, Body::stream(Fed(rx)))
}

fn data(text: &'static str) -> http_body::Frame<Bytes> {
    http_body::Frame::data(Bytes::from_static(text.as_bytes()))
}
