//! A foreign stack shakes hands with the node: ngtcp2 and GnuTLS, with libquic's priorities, with a raw key and without
//! one. It is a small program in C, compiled here; without a compiler or the libraries the test says so and passes.
#![allow(clippy::unwrap_used, missing_docs)]

mod street;

use std::path::{Path, PathBuf};
use std::process::Output;

use data_encoding::HEXLOWER;
use street::{House, Street};
use tokio::process::Command;

const PONG: &str = "14:l1:Ri0e4:ponge";

async fn compiled(directory: &Path) -> Option<PathBuf> {
    let program = directory.join("ping");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/ping.c");
    let mut compiler = Command::new("cc");
    compiler.arg("-O1").arg("-o").arg(&program).arg(source).args(["-lngtcp2", "-lngtcp2_crypto_gnutls", "-lgnutls"]);
    match compiler.output().await {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            let missing = why.contains("No such file") || why.contains("cannot find");
            assert!(missing, "tests/foreign/ping.c: {why}");
            eprintln!(
                "skipped: needs libngtcp2-dev, libngtcp2-crypto-gnutls-dev and libgnutls28-dev, as Debian 12 has them"
            );
            None
        }
        Err(_) => {
            eprintln!("skipped: needs a C compiler");
            None
        }
    }
}

async fn ping(program: &Path, house: &House, server: &[u8; 32], protocol: &str, seed: Option<&[u8; 32]>) -> Output {
    let mut command = Command::new(program);
    command.arg(house.quic.to_string()).arg(HEXLOWER.encode(server)).arg(protocol);
    if let Some(seed) = seed {
        command.arg(HEXLOWER.encode(seed));
    }
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test]
async fn gnutls_shakes_hands_with_a_raw_key_and_without_one() {
    let street = Street::new(&[7, 7]).await;
    let Some(program) = compiled(&street.directory.0).await else { return street.stop().await };
    let [house, other] = &street.houses[..] else { panic!() };
    let listed: [u8; 32] = std::fs::read(&other.settings.key).unwrap()[..32].try_into().unwrap();
    let stranger = [5; 32];
    for (protocol, server, seed, welcome) in [
        ("oxenstorage", &house.key, Some(&stranger), true),
        ("oxenstorage", &house.key, None, true),
        ("oxenstorage", &[9; 32], Some(&stranger), false),
        ("oxenstorage-sn", &house.key, Some(&listed), true),
        ("oxenstorage-sn", &house.key, Some(&stranger), false),
        ("oxenstorage-sn", &house.key, None, false),
        ("quic-files", &house.key, None, false),
    ] {
        let output = ping(&program, house, server, protocol, seed).await;
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let case = format!("{protocol}, key: {}, said: {said}, {why}", seed.is_some());
        assert_eq!((output.status.success(), said == PONG), (welcome, welcome), "{case}");
    }
    street.stop().await;
}
