//! What a node keeps beside its messages: its Ed25519 key, which is its name, and the certificate HTTPS needs. Both are
//! made once, readable by nobody else. Neighbours: `serve` (reads them at the start), `https`, `quic`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::SigningKey;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Trouble;

/// How long the certificate is good; clients do not look.
const CERTIFICATE_DAYS: u64 = 10_000;
/// Longest key file, in bytes.
const KEY_MAX: u64 = 4096;

/// Reads the node's key: oxend's `key_ed25519` (64 bytes, seed and public key), a seed of 32 bytes, or either in
/// hexadecimal. One that is not there is made.
///
/// # Errors
/// The file, and what to do about it.
pub fn key(path: &Path) -> Result<SigningKey, Trouble> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path),
        Err(error) => return Err(at(path, &error, "let this user read it")),
        Ok(_) => {}
    }
    let metadata = fs::metadata(path).map_err(|error| at(path, &error, "bring back what the link leads to"))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(Trouble::new(format!(
            "{}: others can read this key (mode {:04o}), and with it be this node; chmod 600 {0}",
            path.display(),
            metadata.mode() & 0o7777
        )));
    }
    let damaged = || {
        Trouble::new(format!(
            "{}: this is no Ed25519 key: it should hold 64 bytes (as oxend's key_ed25519) or 32, or those in \
             hexadecimal; bring it back from a copy, or move it away, and a new node is made",
            path.display()
        ))
    };
    if !metadata.is_file() || metadata.len() > KEY_MAX {
        return Err(damaged());
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(|error| at(path, &error, "let this user read it"))?);
    let text = bytes.trim_ascii();
    let hex = HEXLOWER_PERMISSIVE.decode(text).ok().map(Zeroizing::new).filter(|_| matches!(text.len(), 64 | 128));
    // 64 bytes that happen to be hexadecimal digits are a key with a probability of nothing.
    let raw: &[u8] = hex.as_ref().map_or(&bytes[..], |hex| &hex[..]);
    let (seed, public) = raw.split_first_chunk::<32>().ok_or_else(damaged)?;
    let key = SigningKey::from_bytes(seed);
    if public.is_empty() || public == key.verifying_key().as_bytes() { Ok(key) } else { Err(damaged()) }
}

fn make(path: &Path) -> Result<SigningKey, Trouble> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|_| Trouble::new("the system gives no random bytes".into()))?;
    let key = SigningKey::from_bytes(&seed);
    let bytes = Zeroizing::new(key.to_keypair_bytes());
    write(path, &*bytes).map_err(|error| at(path, &error, "let this user write in its directory"))?;
    tracing::info!("{}: made a new key: this is a new node", path.display());
    Ok(key)
}

/// Reads the certificate, or makes one.
///
/// # Errors
/// The file, and what to do about it.
pub fn certificate(directory: &Path) -> Result<Arc<ServerConfig>, Trouble> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if !cert.exists() || !key.exists() {
        let (cert_pem, key_pem) =
            signed().map_err(|error| Trouble::new(format!("cannot make a certificate: {error}")))?;
        let remedy = "let this user write in its directory";
        write(&key, key_pem.as_bytes()).map_err(|error| at(&key, &error, remedy))?;
        write(&cert, cert_pem.as_bytes()).map_err(|error| at(&cert, &error, remedy))?;
    }
    let again = |path: &Path, why: &dyn std::fmt::Display| {
        Trouble::new(format!("{}: {why}; remove cert.pem and key.pem, and new ones are made", path.display()))
    };
    let chain = CertificateDer::from_pem_file(&cert).map_err(|error| again(&cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| again(&key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![chain], secret));
    let mut config = config.map_err(|error| again(&cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate that signs itself, as every storage node has.
#[allow(clippy::disallowed_methods)] // the only time that is written into a file, and nothing depends on it
fn signed() -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + Duration::from_secs(CERTIFICATE_DAYS * 86_400)).into();
    Ok((params.self_signed(&key)?.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes a file that only its owner reads, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn at(path: &Path, error: &io::Error, remedy: &str) -> Trouble {
    Trouble::new(format!("{}: {error}; {remedy}", path.display()))
}
