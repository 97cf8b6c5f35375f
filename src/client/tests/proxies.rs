//! Through HTTP and SOCKS5 proxies.

use std::sync::Arc;

use super::*;
use crate::base::error::{Kind, Retry};

fn target(scheme: Scheme, proxy: &str) -> Target {
    let address = Address::Tcp { host: "up.test".into(), port: 8080 };
    let mut options = TargetOptions::new(scheme, address);
    options.proxy = ProxyChoice::Url(Arc::new(ProxyUrl::parse(proxy).unwrap()));
    Target::new(options).unwrap()
}

#[test]
fn plain_requests_go_in_absolute_form() {
    local(async {
        let proxy = Origin::new().await;
        let target = target(Scheme::Http, &format!("http://me:pw@127.0.0.1:{}", proxy.port));
        let server = async {
            let mut peer = proxy.accept().await;
            peer.serve().await
        };
        let (result, head) = tokio::join!(go(&target, get("/x?y")), server);
        assert!(result.is_ok());
        assert!(head.starts_with("GET http://up.test:8080/x?y HTTP/1.1\r\nhost: up.test\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic bWU6cHc="), "{head}");
    });
}

#[test]
fn a_request_given_back_is_as_it_was() {
    local(async {
        let proxy = Origin::new().await;
        let target = target(Scheme::Http, &format!("http://me:pw@127.0.0.1:{}", proxy.port));
        drop(proxy);
        let request = go(&target, get("/x?y")).await.unwrap_err().request.unwrap();
        assert_eq!(request.uri(), "/x?y");
        assert!(!request.headers().contains_key("proxy-authorization"));
    });
}

#[test]
fn tls_goes_through_a_tunnel() {
    local(async {
        let proxy = Origin::new().await;
        let target = target(Scheme::Https, &format!("http://me:pw@127.0.0.1:{}", proxy.port));
        let server = async {
            let mut peer = proxy.accept().await;
            let head = peer.head().await;
            peer.write("HTTP/1.1 200 Connection established\r\n\r\n").await;
            let mut hello = [0; 1];
            peer.stream.read_exact(&mut hello).await.unwrap();
            assert_eq!(hello[0], 22, "a TLS handshake record follows");
            head
        };
        let (result, head) = tokio::join!(go(&target, get("/")), server);
        assert_eq!(result.unwrap_err().error.kind, Kind::TlsFailed);
        assert!(head.starts_with("CONNECT up.test:8080 HTTP/1.1\r\nHost: up.test:8080\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic bWU6cHc="), "{head}");
    });
}

#[test]
fn a_tunnel_refused_is_a_failure_to_connect() {
    local(async {
        let proxy = Origin::new().await;
        let target = target(Scheme::Https, &format!("http://127.0.0.1:{}", proxy.port));
        let server = async {
            let mut peer = proxy.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        };
        let (result, ()) = tokio::join!(go(&target, get("/")), server);
        let error = result.unwrap_err().error;
        assert_eq!((error.kind, error.retry), (Kind::ConnectFailed, Retry::Safe));
        assert!(error.detail.contains("407"), "{error}");
    });
}

#[test]
fn socks5_with_a_login() {
    local(async {
        let proxy = Origin::new().await;
        let target = target(Scheme::Http, &format!("socks5://me:pw@127.0.0.1:{}", proxy.port));
        let server = async {
            let mut peer = proxy.accept().await;
            let mut bytes = [0; 3];
            peer.stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [5, 1, 2]);
            peer.stream.write_all(&[5, 2]).await.unwrap();
            let mut login = [0; 7];
            peer.stream.read_exact(&mut login).await.unwrap();
            assert_eq!(&login, b"\x01\x02me\x02pw");
            peer.stream.write_all(&[1, 0]).await.unwrap();
            let mut connect = [0; 14];
            peer.stream.read_exact(&mut connect).await.unwrap();
            assert_eq!(&connect, b"\x05\x01\x00\x03\x07up.test\x1f\x90");
            peer.stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            peer.serve().await
        };
        let (result, head) = tokio::join!(go(&target, get("/s")), server);
        assert!(result.is_ok());
        assert!(head.starts_with("GET /s HTTP/1.1\r\n"), "{head}");
    });
}
