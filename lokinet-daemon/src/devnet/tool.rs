//! Small stand-ins for what a bare machine lacks: an HTTP server (always ours), a resolver and an HTTP client (only where dig
//! or curl are missing). `demo` runs them inside nodes, as hidden verbs of devnet.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::screen::Screen;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request head the server reads.
const HEAD_MAX: usize = 8192;
/// What the server sends at once.
static CHUNK: [u8; 65536] = [b'~'; 65536];

/// Serves a greeting at `/`, and `bytes` bytes at any other path.
pub fn serve(address: SocketAddr, bytes: u64, screen: &Screen) -> Outcome<()> {
    let listener = TcpListener::bind(address).or_trouble(|| format!("cannot listen at {address}"))?;
    screen.say(format_args!("listening at {address}"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve_one(stream, bytes));
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream, bytes: u64) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut part)?;
        if length == 0 || head.len() > HEAD_MAX {
            return Ok(());
        }
        head.extend_from_slice(part.get(..length).unwrap_or_default());
    }
    let greeting = b"Hello from a .loki site: you are nobody, and welcome.\n";
    let greets = head.starts_with(b"GET / ");
    let length = if greets { greeting.len() as u64 } else { bytes };
    let kind = if greets { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    if greets {
        return stream.write_all(greeting);
    }
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        stream.write_all(CHUNK.get(..now).unwrap_or_default())?;
        left -= now as u64;
    }
    Ok(())
}

/// Prints what `name` resolves to, as `dig +short` does.
pub fn resolve(server: &str, name: &str, screen: &Screen) -> Outcome<()> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let parsed = Name::from_utf8(name).or_trouble(|| format!("{name:?} is no name"))?;
    question.add_query(Query::query(parsed, RecordType::A));
    let bytes = question.to_vec().or_trouble(|| format!("cannot ask for {name}"))?;
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&bytes)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        Ok::<Vec<u8>, std::io::Error>(answer.get(..length).unwrap_or_default().to_vec())
    };
    let answer = ask().or_trouble(|| format!("no answer from {server}:53"))?;
    let answer = Message::from_vec(&answer).or_trouble(|| format!("{server}:53 answers nonsense"))?;
    for record in &answer.answers {
        match &record.data {
            RData::A(address) => screen.say(address),
            RData::CNAME(name) => screen.say(&name.0),
            _ => {}
        }
    }
    Ok(())
}

/// Fetches `url` (plain HTTP only): the body to standard output, or with `measure` its size and speed, as curl's `-w`
/// prints it.
pub fn fetch(url: &str, measure: bool) -> Outcome<()> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Trouble::refusal(format!("{url:?} is no http:// address")))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let began = Instant::now();
    let address = (host, 80).to_socket_addrs().ok().and_then(|mut all| all.next());
    let address = address.ok_or_else(|| Trouble::new(format!("{host} cannot be resolved")))?;
    let get = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        read_body(&mut stream, measure)
    };
    let (size, promised) = get().or_trouble(|| format!("cannot fetch {url}"))?;
    if promised.is_some_and(|promised| promised != size) {
        return Err(Trouble::new(format!("{url} broke off after {size} bytes")));
    }
    if measure {
        let speed = size as f64 / began.elapsed().as_secs_f64();
        let _ = write!(std::io::stdout(), "{size} {speed:.0}");
    }
    Ok(())
}

fn read_body(stream: &mut TcpStream, measure: bool) -> std::io::Result<(u64, Option<u64>)> {
    let mut part = vec![0; 65536];
    let (mut head, mut promised, mut size): (Vec<u8>, Option<u64>, u64) = (Vec::new(), None, 0);
    let mut in_body = false;
    loop {
        let length = stream.read(&mut part)?;
        let bytes = part.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return if in_body { Ok((size, promised)) } else { Err(std::io::Error::other("no HTTP answer")) };
        }
        let mut body = bytes;
        if !in_body {
            head.extend_from_slice(bytes);
            let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            body = bytes.get(bytes.len() - (head.len() - end - 4)..).unwrap_or_default();
            let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
            promised = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            in_body = true;
        }
        size += body.len() as u64;
        if !measure {
            std::io::stdout().write_all(body)?;
        }
    }
}
