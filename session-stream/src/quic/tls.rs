//! TLS as Session's QUIC uses it: raw Ed25519 keys (RFC 7250), no certificates, no early data, no resumption. A client
//! insists on the key it expects; a server lets the application protocol say whether a client must show one, may, or need
//! not. Neighbours: `hello` (what the choice is made by), `quic` (puts these under quinn).
//!
//! Two things make this more than a configuration. rustls refuses a client without a raw key where it would take one, so
//! `Choosing` reads the ClientHello first and then picks one of several configurations. And libquic's tickets announce
//! an amount of early data that QUIC forbids, for which rustls hangs up; a client of ours does not read tickets at all.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{ConnectError, ConnectionId, Side};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
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
use zeroize::{Zeroize, Zeroizing};

use super::hello::{self, Hello, Seen};

/// What a raw Ed25519 public key looks like in TLS: this, then its 32 bytes.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What an Ed25519 seed looks like in PKCS #8: this, then its 32 bytes.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The name clients greet every server by; it has no meaning.
pub const SERVER_NAME: &str = "localhost";

/// A key to prove in TLS.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// The key that grows from a seed (RFC 8032).
    ///
    /// # Errors
    /// None that a seed could cause.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Identity, Error> {
        let mut pkcs8 = Zeroizing::new([0; PKCS8_HEAD.len() + 32]);
        pkcs8[..PKCS8_HEAD.len()].copy_from_slice(&PKCS8_HEAD);
        pkcs8[PKCS8_HEAD.len()..].copy_from_slice(seed);
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let key = aws_lc_rs::sign::any_supported_type(&der)?;
        let spki = key.public_key().ok_or(Error::General("this key has no public half".into()))?;
        let public = CertificateDer::from(spki.as_ref().to_vec());
        Ok(Identity(Arc::new(CertifiedKey::new(vec![public], key))))
    }

    /// A key made now, to be forgotten with its connection: for servers that insist on one, whoever it is.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn throwaway() -> Result<Identity, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::FailedToGetRandomBytes)?;
        let identity = Identity::from_seed(&seed);
        seed.zeroize();
        identity
    }
}

/// What a client of a protocol must show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys7250 {
    /// A raw key, if it has one.
    Optional,
    /// A raw key.
    Mandatory,
}

/// How we answer: prove `identity`, speak one of these protocols, the first that the client offers too.
///
/// # Errors
/// The TLS library was built without something it needs.
pub fn server(identity: &Identity, protocols: &[(&'static [u8], Keys7250)]) -> Result<Arc<dyn ServerConfig>, Error> {
    let names: Vec<Vec<u8>> = protocols.iter().map(|(name, _)| name.to_vec()).collect();
    let with = |names: &[Vec<u8>], verifier| accepting(identity, names, verifier);
    let doors = protocols.iter().map(|&(name, keys)| {
        let keyed = with(&[name.to_vec()], Some(keys == Keys7250::Mandatory))?;
        let bare = match keys {
            Keys7250::Mandatory => keyed.clone(),
            Keys7250::Optional => with(&[name.to_vec()], None)?,
        };
        Ok(Door { name, keyed, bare })
    });
    let doors = doors.collect::<Result<_, Error>>()?;
    Ok(Arc::new(Choosing { doors, wall: with(&names, None)? }))
}

fn accepting(identity: &Identity, names: &[Vec<u8>], keys: Option<bool>) -> Result<Arc<QuicServerConfig>, Error> {
    let provider = Arc::new(provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match keys {
        None => builder.with_no_client_auth(),
        Some(mandatory) => {
            let algorithms = provider.signature_verification_algorithms;
            builder.with_client_cert_verifier(Arc::new(AnyKey { algorithms, mandatory }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.0.clone())));
    config.alpn_protocols = names.to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let config = QuicServerConfig::with_initial(Arc::new(config), initial_suite()?);
    Ok(Arc::new(config.map_err(|e| Error::General(e.to_string()))?))
}

/// How we dial: prove `identity`, if there is one, insist on the server's key, speak one protocol.
///
/// # Errors
/// The TLS library was built without something it needs.
pub fn client(
    identity: Option<&Identity>,
    expected: [u8; 32],
    protocol: &[u8],
) -> Result<Arc<dyn ClientConfig>, Error> {
    let provider = Arc::new(provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneKey(expected, provider.signature_verification_algorithms)));
    let mut config = match identity {
        Some(Identity(key)) => {
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    let config = QuicClientConfig::with_initial(Arc::new(config), initial_suite()?);
    Ok(Arc::new(Ticketless(Arc::new(config.map_err(|e| Error::General(e.to_string()))?))))
}

/// The Ed25519 key the peer of a connection proved, if it proved one.
pub fn proven(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let proven = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_in(proven.first()?).ok()
}

/// The application protocol of a connection.
pub fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The hybrid exchange first, and what all of Session's software has beside it.
fn provider() -> CryptoProvider {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

/// QUIC protects its first packets with AES-128 under a public key.
fn initial_suite() -> Result<rustls::quic::Suite, Error> {
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .ok_or(Error::General("the TLS provider was built without QUIC".into()))
}

/// A protocol, and how to answer who offers it.
struct Door {
    name: &'static [u8],
    /// To a client that has a raw key.
    keyed: Arc<QuicServerConfig>,
    /// To one that has none.
    bare: Arc<QuicServerConfig>,
}

/// A server's configurations, of which the ClientHello chooses one.
struct Choosing {
    doors: Vec<Door>,
    /// For who offers nothing we speak: it is told so, properly.
    wall: Arc<QuicServerConfig>,
}

impl Choosing {
    fn choose(&self, hello: &Hello) -> Arc<QuicServerConfig> {
        let offered = |door: &&Door| hello.protocols.iter().any(|name| name == door.name);
        match self.doors.iter().find(offered) {
            None => self.wall.clone(),
            Some(door) if hello.raw_key => door.keyed.clone(),
            Some(door) => door.bare.clone(),
        }
    }
}

impl ServerConfig for Choosing {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.wall.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.wall.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let session = self.wall.clone().start_session(version, params);
        let undecided = Undecided { seen: Vec::new(), version, params: *params, choosing: self };
        Box::new(Accepted { session, undecided: Some(undecided) })
    }
}

/// A server's session; until the ClientHello is whole its `session` only holds the place.
struct Accepted {
    session: Box<dyn Session>,
    undecided: Option<Undecided>,
}

struct Undecided {
    seen: Vec<u8>,
    version: u32,
    params: TransportParameters,
    choosing: Arc<Choosing>,
}

impl Accepted {
    fn read(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(undecided) = &mut self.undecided else { return self.session.read_handshake(bytes) };
        undecided.seen.extend_from_slice(bytes);
        let Seen::Whole(hello) = hello::look(&undecided.seen) else { return Ok(false) };
        let Some(undecided) = self.undecided.take() else { return Ok(false) };
        let chosen = undecided.choosing.choose(&hello);
        self.session = chosen.start_session(undecided.version, &undecided.params);
        self.session.read_handshake(&undecided.seen)
    }
}

/// A client's configuration whose sessions do not read tickets.
struct Ticketless(Arc<QuicClientConfig>);

impl ClientConfig for Ticketless {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(Dialled { session: self.0.clone().start_session(version, server_name, params)? }))
    }
}

/// A client's session.
struct Dialled {
    session: Box<dyn Session>,
}

impl Dialled {
    fn read(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        // Behind the handshake QUIC allows nothing but tickets (RFC 9001, 4.4 and 6), and we never resume.
        if self.session.is_handshaking() { self.session.read_handshake(bytes) } else { Ok(false) }
    }
}

/// A session that reads in its own way and leaves the rest to the one inside.
macro_rules! reads_its_own_way {
    ($session:ty) => {
        impl Session for $session {
            fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
                self.session.initial_keys(dst_cid, side)
            }
            fn handshake_data(&self) -> Option<Box<dyn Any>> {
                self.session.handshake_data()
            }
            fn peer_identity(&self) -> Option<Box<dyn Any>> {
                self.session.peer_identity()
            }
            fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
                self.session.early_crypto()
            }
            fn early_data_accepted(&self) -> Option<bool> {
                self.session.early_data_accepted()
            }
            fn is_handshaking(&self) -> bool {
                self.session.is_handshaking()
            }
            fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
                self.read(bytes)
            }
            fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
                self.session.transport_parameters()
            }
            fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
                self.session.write_handshake(buf)
            }
            fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
                self.session.next_1rtt_keys()
            }
            fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
                self.session.is_valid_retry(orig_dst_cid, header, payload)
            }
            fn export_keying_material(
                &self,
                output: &mut [u8],
                label: &[u8],
                context: &[u8],
            ) -> Result<(), ExportKeyingMaterialError> {
                self.session.export_keying_material(output, label, context)
            }
        }
    };
}
reads_its_own_way!(Accepted);
reads_its_own_way!(Dialled);

fn key_in(spki: &CertificateDer<'_>) -> Result<[u8; 32], Error> {
    let key = spki.strip_prefix(&SPKI_HEAD).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    key.try_into().map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
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

/// Takes exactly one server's key.
#[derive(Debug)]
struct OneKey([u8; 32], WebPkiSupportedAlgorithms);

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
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
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
        proves(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
