//! How an answer travels over QUIC: with its status in a list around it, or, when it says no, behind a line that says so.
//! Between nodes an answer that is not no travels bare. Neighbours: `quic` (sends it), `client` (opens it), `https` (says
//! the same in HTTP's own way).

use bytes::Bytes;

use crate::node::io::Body;

/// Who is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum To {
    Client,
    Node,
}

/// The body of a reply (`Ok`) or of an error.
pub fn seal(status: u16, body: Body, to: To) -> Result<Bytes, Bytes> {
    if (200..300).contains(&status) {
        return Ok(match body {
            Body::Dict(dict) if to == To::Client => listed(status, &dict),
            Body::Dict(bytes) | Body::Raw(bytes) => bytes,
            Body::Text(text) => text.into(),
        });
    }
    let body = match body {
        Body::Dict(dict) if to == To::Client => listed(status, &dict),
        Body::Dict(bytes) | Body::Raw(bytes) => bytes,
        Body::Text(text) => text.into(),
    };
    let head = format!("{status} {}\n\n", reason(status));
    Err([head.as_bytes(), &body].concat().into())
}

/// `[status, dict]`, in the notation that the dictionary is written in.
fn listed(status: u16, dict: &[u8]) -> Bytes {
    let (head, tail) =
        if dict.first() == Some(&b'd') { (format!("li{status}e"), "e") } else { (format!("[{status},"), "]") };
    [head.as_bytes(), dict, tail.as_bytes()].concat().into()
}

/// A status in words (RFC 9110).
pub fn reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_travel_as_the_ancestors_do() {
        let json = || Body::Dict(Bytes::from_static(br#"{"a":1}"#));
        let bt = || Body::Dict(Bytes::from_static(b"d1:ai1ee"));
        let text = || Body::Text("why not".into());
        for (status, body, to, sealed) in [
            (200, json(), To::Client, Ok(r#"[200,{"a":1}]"#)),
            (200, bt(), To::Client, Ok("li200ed1:ai1eee")),
            (200, bt(), To::Node, Ok("d1:ai1ee")),
            (200, Body::Raw(Bytes::from_static(b"pong")), To::Client, Ok("pong")),
            (421, json(), To::Client, Err("421 Misdirected Request\n\n[421,{\"a\":1}]")),
            (421, bt(), To::Client, Err("421 Misdirected Request\n\nli421ed1:ai1eee")),
            (401, text(), To::Client, Err("401 Unauthorized\n\nwhy not")),
            (500, bt(), To::Node, Err("500 Internal Server Error\n\nd1:ai1ee")),
        ] {
            assert_eq!(seal(status, body, to), sealed.map(Bytes::from).map_err(Bytes::from));
        }
    }
}
