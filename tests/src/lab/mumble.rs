//! The voice server's UDP ping, as its clients' server list sends it: four zero bytes and eight of ours; the answer has its
//! version, our eight bytes, and how many people are there (24 bytes in all). Neighbours: `lab` runs it inside a node.

use std::net::{ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

const MARK: [u8; 8] = *b"loki-lab";

/// Pings `place` (name and port) and prints what came back; exit code 0 when that is a server's answer.
#[allow(clippy::print_stdout, reason = "it is a program of its own")]
pub fn ping(place: &str) -> ExitCode {
    match ask(place) {
        Ok((version, users)) => {
            println!("mumble server {version}, {users} users");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("no answer from {place}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(place: &str) -> std::io::Result<(String, u32)> {
    let to = place.to_socket_addrs()?.find(std::net::SocketAddr::is_ipv4);
    let to = to.ok_or_else(|| std::io::Error::other("the name has no IPv4 address"))?;
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(to)?;
    let mut answer = [0; 64];
    let mut last = None;
    for _ in 0..3 {
        socket.send(&[[0; 4].as_slice(), &MARK].concat())?;
        match socket.recv(&mut answer) {
            Ok(24) if answer[4..12] == MARK => {
                let version = format!("{}.{}.{}", answer[1], answer[2], answer[3]);
                return Ok((version, u32::from_be_bytes([answer[12], answer[13], answer[14], answer[15]])));
            }
            Ok(_) => last = Some(std::io::Error::other("that is no answer to a ping")),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("no answer")))
}
