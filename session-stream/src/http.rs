//! One HTTP/1.1 request over TCP or TLS, and its answer, bounded in size; the caller bounds the time. Neighbours: `serve`
//! (asks the registry, posts to servers, tests peers), `client` (onion requests).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where distributions keep the certificates of authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whose word a server's name rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// An authority's, as browsers have it.
    Authorities,
    /// Nobody's: nodes sign their certificates themselves, and what matters is sealed inside.
    Nobody,
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Those of the public network: a stranger chose the name.
    Public,
    /// Any.
    Anywhere,
}

/// What came back.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Response {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL has no host, or another scheme.
    #[error("{0}: not a URL this can ask; it begins with http:// or https:// and names a host")]
    Url(String),
    /// Not an address a stranger may have us connect to.
    #[error("{0} is not on the public network")]
    NotPublic(String),
    /// No connection.
    #[error("{0}: cannot connect: {1}")]
    Connect(String, std::io::Error),
    /// The other side does not speak HTTP, ends early, or says more than was asked for.
    #[error("{0}: {1}")]
    Broken(String, String),
}

/// Asks servers.
#[derive(Clone)]
pub struct Http {
    trusting: TlsConnector,
    unknowing: TlsConnector,
}

impl Http {
    /// With the system's authorities; without any, only [`Trust::Nobody`] connects.
    ///
    /// # Errors
    /// The TLS library was built without something it needs.
    pub fn new() -> Result<Http, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let trusting = builder()?.with_root_certificates(authorities()).with_no_client_auth();
        let unknowing = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.signature_verification_algorithms)))
            .with_no_client_auth();
        Ok(Http { trusting: Arc::new(trusting).into(), unknowing: Arc::new(unknowing).into() })
    }

    /// TLS that trusts nobody, for who speaks something else over it.
    pub fn unknowing(&self) -> TlsConnector {
        self.unknowing.clone()
    }

    /// Gets, or posts a body; the answer has at most `limit` bytes.
    ///
    /// # Errors
    /// See [`HttpError`]. A status that says no is an answer.
    pub async fn ask(
        &self,
        url: &str,
        post: Option<(Bytes, &'static str)>,
        limit: usize,
        trust: Trust,
        reach: Reach,
    ) -> Result<Response, HttpError> {
        let bad = || HttpError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let (host, secure) = match (uri.host(), uri.scheme_str()) {
            (Some(host), Some("https")) => (host.trim_matches(['[', ']']), true),
            (Some(host), Some("http")) => (host.trim_matches(['[', ']']), false),
            _ => return Err(bad()),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = connect(host, port, reach).await?;
        let request = request(&uri, post).map_err(|_| bad())?;
        if !secure {
            return exchange(stream, request, limit, url).await;
        }
        let connector = if trust == Trust::Authorities { &self.trusting } else { &self.unknowing };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        let stream = connector.connect(name, stream).await.map_err(|e| HttpError::Connect(url.to_owned(), e))?;
        exchange(stream, request, limit, url).await
    }
}

async fn connect(host: &str, port: u16, reach: Reach) -> Result<TcpStream, HttpError> {
    let failed = |error| HttpError::Connect(format!("{host}:{port}"), error);
    let found = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    let allowed: Vec<SocketAddr> = found.filter(|addr| reach == Reach::Anywhere || is_public(addr.ip())).collect();
    if allowed.is_empty() {
        return Err(HttpError::NotPublic(host.to_owned()));
    }
    TcpStream::connect(&allowed[..]).await.map_err(failed)
}

/// Whether an address belongs to the public network, rather than to this host, its neighbourhood or nobody.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let inside = ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared;
            let nobody = a == 0 || a >= 224 || ip.is_documentation() || (a == 198 && (18..20).contains(&b));
            !inside && !nobody
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public(ip.into()),
            // Only 2000::/3 is given out; 6to4 and Teredo in it lead back into IPv4.
            None => {
                ip.segments()[0] & 0xe000 == 0x2000 && ip.segments()[0] != 0x2002 && ip.segments()[..2] != [0x2001, 0]
            }
        },
    }
}

fn request(uri: &Uri, post: Option<(Bytes, &'static str)>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::builder().uri(target).header(HOST, authority);
    match post {
        None => request.method(Method::GET).body(Full::default()),
        Some((body, kind)) => request.method(Method::POST).header(CONTENT_TYPE, kind).body(Full::new(body)),
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, limit: usize, url: &str) -> Result<Response, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &dyn std::fmt::Display| HttpError::Broken(url.to_owned(), error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let driving = Driving(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await.map_err(|e| broken(&e))?.to_bytes();
    drop(driving);
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
}

/// A task that ends with who waits for it.
struct Driving(tokio::task::JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The system's authorities, as far as there are any.
fn authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let places = named.into_iter().chain(AUTHORITIES.map(Into::into));
    if let Some(found) = places.into_iter().find_map(|path| CertificateDer::pem_file_iter(path).ok()) {
        roots.add_parsable_certificates(found.flatten());
    }
    roots
}

/// Takes any certificate whose key is proved.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_name_public_addresses_only() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "2001::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2001:db9::1", "::ffff:1.1.1.1"] {
            assert!(is_public(ip.parse().expect("an address")), "{ip}");
        }
    }
}
