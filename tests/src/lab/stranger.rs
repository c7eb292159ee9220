//! A stranger's QUIC: links as clients open them, with a fresh key each, to a relay whose key is not even looked at; and
//! first packets of handshakes that are never gone on with. Neighbours: `storm` does harm with them; the driver's own
//! `tls` is what stands at the other end.

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What an Ed25519 seed looks like in PKCS #8: this, then its 32 bytes.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Takes whoever answers.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// How a stranger with this seed dials: it reads replies only as far as `window` bytes when nobody takes them.
pub fn config(seed: &[u8; 32], window: u32) -> Option<ClientConfig> {
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
    let pkcs8 = [&PKCS8_HEAD[..], seed].concat();
    let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8))).ok()?;
    let public = CertificateDer::from(key.public_key()?.as_ref().to_vec());
    let identity = Arc::new(CertifiedKey::new(vec![public], key));
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity)));
    tls.alpn_protocols = vec![b"lk1-aes".to_vec(), b"lk1-chacha".to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    let initial = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::with_initial(Arc::new(tls), initial).ok()?));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(window)).receive_window(VarInt::from_u32(window * 64));
    config.transport_config(Arc::new(transport));
    Some(config)
}

/// Opens a link.
pub async fn link(endpoint: &Endpoint, relay: SocketAddr, seed: &[u8; 32], window: u32) -> Option<Connection> {
    endpoint.connect_with(config(seed, window)?, relay, "stranger").ok()?.await.ok()
}

/// The datagrams that begin a handshake: as its own beginner would send them, from nowhere in particular.
#[allow(clippy::disallowed_methods, reason = "a lab lives in real time")]
pub fn first_packets(relay: SocketAddr, seed: &[u8; 32]) -> Vec<Vec<u8>> {
    let Some(config) = config(seed, 1 << 16) else { return Vec::new() };
    let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
    let now = Instant::now();
    let Ok((_, mut connection)) = endpoint.connect(now, config, relay, "stranger") else { return Vec::new() };
    let mut datagrams = Vec::new();
    let mut bytes = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut bytes) {
        datagrams.push(bytes[..transmit.size].to_vec());
        bytes.clear();
    }
    datagrams
}
