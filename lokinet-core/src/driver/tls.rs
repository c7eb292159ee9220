//! TLS as links use it: raw Ed25519 keys on both sides (RFC 7250), one post-quantum key exchange, no certificates, no
//! resumption, no early data. A client proves the key it was told to prove and insists on one exact relay key; a relay
//! takes any client key and lets the node decide what it is worth. ALPN settles the cell channel's suite. Neighbours:
//! `quic` puts these configurations under quinn; nobody else knows that TLS exists.

use crate::node::io::Suite;
use crate::wire::id::RelayId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// What a raw Ed25519 public key looks like in TLS: this, then its 32 bytes.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What an Ed25519 seed looks like in PKCS #8: this, then its 32 bytes.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Whether this host has AES instructions. Without them AES is slow and leaks through the cache.
pub fn fast_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

/// The suites this host offers, the preferred one first.
pub(crate) fn suites() -> &'static [Suite] {
    if fast_aes() { &[Suite::Aes, Suite::ChaCha] } else { &[Suite::ChaCha] }
}

fn alpn(suite: Suite) -> &'static [u8] {
    match suite {
        Suite::Aes => b"lk1-aes",
        Suite::ChaCha => b"lk1-chacha",
    }
}

/// A key to prove in TLS.
#[derive(Clone)]
pub(crate) struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// The key that grows from a relay's seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Result<Identity, Error> {
        let mut pkcs8 = Zeroizing::new([0; PKCS8_HEAD.len() + 32]);
        pkcs8[..PKCS8_HEAD.len()].copy_from_slice(&PKCS8_HEAD);
        pkcs8[PKCS8_HEAD.len()..].copy_from_slice(seed);
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let key = aws_lc_rs::sign::any_supported_type(&der)?;
        let spki = key.public_key().ok_or(Error::General("this key has no public half".into()))?;
        let public = CertificateDer::from(spki.as_ref().to_vec());
        Ok(Identity(Arc::new(CertifiedKey::new(vec![public], key))))
    }

    /// A key made now, to be forgotten with its link.
    pub(crate) fn throwaway() -> Result<Identity, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::FailedToGetRandomBytes)?;
        let identity = Identity::from_seed(&seed);
        seed.zeroize();
        identity
    }
}

/// How we answer dials: prove `identity`, take any Ed25519 client, choose the first of `offers` that the client has.
pub(crate) fn server(identity: &Identity, offers: &[Suite]) -> Result<QuicServerConfig, Error> {
    let provider = Arc::new(provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyKey(provider.signature_verification_algorithms)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.0.clone())));
    config.alpn_protocols = offers.iter().map(|&suite| alpn(suite).to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::with_initial(Arc::new(config), initial_suite()?).map_err(|e| Error::General(e.to_string()))
}

/// How we dial: prove `identity`, insist on `peer`.
pub(crate) fn client(identity: &Identity, peer: RelayId, offers: &[Suite]) -> Result<QuicClientConfig, Error> {
    client_with(provider(), identity, peer, offers)
}

fn client_with(
    provider: CryptoProvider,
    identity: &Identity,
    peer: RelayId,
    offers: &[Suite],
) -> Result<QuicClientConfig, Error> {
    let provider = Arc::new(provider);
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneKey(peer, provider.signature_verification_algorithms)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.0.clone())));
    config.alpn_protocols = offers.iter().map(|&suite| alpn(suite).to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false; // relays have no names, and a ClientHello is readable by everyone on the way
    QuicClientConfig::with_initial(Arc::new(config), initial_suite()?).map_err(|e| Error::General(e.to_string()))
}

/// The key the peer of a connection proved.
pub(crate) fn peer(connection: &quinn::Connection) -> Option<RelayId> {
    let proven = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_in(proven.first()?).ok()
}

/// The suite that ALPN settled for a connection.
pub(crate) fn suite(connection: &quinn::Connection) -> Option<Suite> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let chosen = data.protocol?;
    [Suite::Aes, Suite::ChaCha].into_iter().find(|&suite| alpn(suite) == chosen)
}

/// One key exchange, two suites. A peer without them cannot talk to us, which is the point: no link is ever weaker.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        cipher_suites: match suites() {
            [Suite::Aes, ..] => vec![
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            _ => vec![
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ],
        },
        ..aws_lc_rs::default_provider()
    }
}

/// QUIC protects its first packets with AES-128 under a public key; this suite serves only for that.
fn initial_suite() -> Result<rustls::quic::Suite, Error> {
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .ok_or(Error::General("the TLS provider was built without QUIC".into()))
}

fn key_in(spki: &CertificateDer<'_>) -> Result<RelayId, Error> {
    let key = spki.strip_prefix(&SPKI_HEAD).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    key.try_into().map(RelayId).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn proves(
    message: &[u8],
    spki: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
}

/// Takes exactly one relay key.
#[derive(Debug)]
struct OneKey(RelayId, WebPkiSupportedAlgorithms);

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key_in(end_entity)? == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proves(message, cert, dss, &self.1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Takes any Ed25519 key, as long as it is proved.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_in(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proves(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What an old client would bring: the right keys, and a key exchange without the post-quantum half.
#[cfg(test)]
pub(crate) fn classical_client(identity: &Identity, peer: RelayId) -> Result<QuicClientConfig, Error> {
    let old = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..provider() };
    client_with(old, identity, peer, suites())
}
