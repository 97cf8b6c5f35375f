//! Through a proxy to the upstream: HTTP CONNECT and SOCKS5. Plain `http` targets need no tunnel behind an HTTP proxy:
//! their requests go there in absolute form (see `send`).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{secure_proxy, speaks_to_proxy};
use super::proxy_env::{ProxyKind, ProxyUrl};
use super::stream::Stream;
use super::target::{Address, Target};
use crate::base::error::{Kind, ProxyError, Retry};

/// A proxy's answer to CONNECT must fit into this.
const HEAD_LIMIT: usize = 16 * 1024;

pub(super) async fn through(proxy: &ProxyUrl, target: &Target, stream: Stream) -> Result<Stream, ProxyError> {
    let result = async {
        let mut stream = match proxy.kind {
            ProxyKind::Https => secure_proxy(&proxy.host, stream).await?,
            ProxyKind::Http | ProxyKind::Socks5 => stream,
        };
        let Address::Tcp { host, port } = &target.options.address else { return Ok(stream) };
        if proxy.kind == ProxyKind::Socks5 {
            socks5(proxy, host, *port, &mut stream).await?;
        } else if !speaks_to_proxy(target) {
            connect(proxy, &target.label, &mut stream).await?;
        }
        Ok(stream)
    };
    result.await.map_err(|error: io::Error| {
        let detail = format!("{} through the proxy {}:{}: {error}", target.label, proxy.host, proxy.port);
        ProxyError::new(Kind::ConnectFailed, Retry::Safe, detail)
    })
}

async fn connect(proxy: &ProxyUrl, authority: &str, stream: &mut Stream) -> io::Result<()> {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(value) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let status = match answer.parse(&head) {
        Ok(_) => answer.code.unwrap_or(0),
        Err(error) => return Err(io::Error::other(format!("not an HTTP answer ({error})"))),
    };
    if (200..300).contains(&status) { Ok(()) } else { Err(io::Error::other(format!("refused with status {status}"))) }
}

/// Byte by byte, as what follows the head belongs to the upstream; it happens once per connection.
async fn read_head(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_LIMIT {
            return Err(io::Error::other("the answer's head is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// RFC 1928 and 1929; the proxy resolves the name.
async fn socks5(proxy: &ProxyUrl, host: &str, port: u16, stream: &mut Stream) -> io::Result<()> {
    const NO_LOGIN: u8 = 0;
    const PASSWORD: u8 = 2;
    let method = if proxy.user.is_some() { PASSWORD } else { NO_LOGIN };
    stream.write_all(&[5, 1, method]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, &proxy.user) {
        ([5, NO_LOGIN], _) => {}
        ([5, PASSWORD], Some((name, password))) => {
            let mut login = vec![1];
            push_short(&mut login, name.as_bytes())?;
            push_short(&mut login, password.as_bytes())?;
            stream.write_all(&login).await?;
            let mut granted = [0; 2];
            stream.read_exact(&mut granted).await?;
            if granted[1] != 0 {
                return Err(io::Error::other("the login was refused"));
            }
        }
        _ => return Err(io::Error::other("no common login method")),
    }
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            request.push(3);
            push_short(&mut request, host.as_bytes())?;
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer[0] != 5 || answer[1] != 0 {
        return Err(io::Error::other(format!("refused with code {}", answer[1])));
    }
    let bound = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(io::Error::other("malformed answer")),
    };
    let mut rest = [0; 255 + 2];
    stream.read_exact(&mut rest[..bound + 2]).await?;
    Ok(())
}

fn push_short(to: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let len = u8::try_from(bytes.len()).map_err(|_| io::Error::other("a name is longer than 255 bytes"))?;
    to.push(len);
    to.extend_from_slice(bytes);
    Ok(())
}
