//! Frames of BT request streams, byte for byte as libquic writes them: a bt string that holds a bt list, commands one
//! way, replies and errors the other. [`Reader`] takes the bytes as they arrive and keeps at most one unfinished frame.
//! Neighbours: `bt` (the notation), `quic` (the streams).

use bytes::{Buf, Bytes, BytesMut};

use crate::bt;
use crate::value::Malformed;

/// Longest list in a frame, in bytes.
pub const FRAME_MAX: usize = 10_000_000;
/// Longest `<len>:` before it.
const PREFIX_MAX: usize = 10;

/// One frame. `id` counts each sender's commands on this stream, from 0; an answer names the command's.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Frame {
    /// Asks, or tells: a command that nobody waits for looks the same.
    Command { id: i64, endpoint: String, body: Bytes },
    /// Answers a command.
    Reply { id: i64, body: Bytes },
    /// Says why a command was not done.
    Error { id: i64, body: Bytes },
}

impl Frame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// The frame would be longer than [`FRAME_MAX`].
    pub fn write(&self) -> Result<Bytes, Malformed> {
        let mut list = Vec::with_capacity(self.body().len() + 64);
        let (kind, id) = match self {
            Frame::Command { id, .. } => ('C', id),
            Frame::Reply { id, .. } => ('R', id),
            Frame::Error { id, .. } => ('E', id),
        };
        list.extend_from_slice(format!("l1:{kind}i{id}e").as_bytes());
        if let Frame::Command { endpoint, .. } = self {
            bt::put_string(&mut list, endpoint.as_bytes());
        }
        bt::put_string(&mut list, self.body());
        list.push(b'e');
        if list.len() > FRAME_MAX {
            return Err(Malformed);
        }
        let mut out = Vec::with_capacity(list.len() + PREFIX_MAX);
        bt::put_string(&mut out, &list);
        Ok(out.into())
    }

    /// What is carried.
    pub fn body(&self) -> &Bytes {
        let (Frame::Command { body, .. } | Frame::Reply { body, .. } | Frame::Error { body, .. }) = self;
        body
    }

    /// Reads a frame's list. The body is not copied.
    fn read(list: &Bytes) -> Result<Frame, Malformed> {
        let mut rest = list.strip_prefix(b"l").ok_or(Malformed)?;
        let kind = bt::string(&mut rest)?;
        let id = bt::upto(&mut rest, b'e')?.strip_prefix(b"i").ok_or(Malformed)?;
        let id = i64::try_from(bt::integer(id)?).map_err(|_| Malformed)?;
        let frame = match kind {
            b"C" => {
                let endpoint = str::from_utf8(bt::string(&mut rest)?).map_err(|_| Malformed)?.to_owned();
                Frame::Command { id, endpoint, body: list.slice_ref(bt::string(&mut rest)?) }
            }
            b"R" => Frame::Reply { id, body: list.slice_ref(bt::string(&mut rest)?) },
            b"E" => Frame::Error { id, body: list.slice_ref(bt::string(&mut rest)?) },
            _ => return Err(Malformed),
        };
        if rest == b"e" { Ok(frame) } else { Err(Malformed) }
    }
}

/// Puts frames together from what a stream brings.
#[derive(Default)]
pub struct Reader {
    arrived: BytesMut,
    /// The length of the list that is arriving, once its prefix is known.
    length: Option<usize>,
}

impl Reader {
    /// Takes what arrived. Call [`Reader::frame`] until it has none before the next bytes, so that no more than one
    /// frame and one such piece are ever held.
    pub fn take(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// The next whole frame; nothing while it is still arriving.
    ///
    /// # Errors
    /// What arrived is not a frame, nor the beginning of one: the stream is of no more use.
    pub fn frame(&mut self) -> Result<Option<Frame>, Malformed> {
        if self.length.is_none() {
            self.length = self.prefix()?;
        }
        let Some(length) = self.length.filter(|length| *length <= self.arrived.len()) else { return Ok(None) };
        self.length = None;
        let frame = Frame::read(&self.arrived.split_to(length).freeze())?;
        if self.arrived.is_empty() {
            self.arrived = BytesMut::new(); // a quiet stream holds no buffer
        }
        Ok(Some(frame))
    }

    /// Whether a frame has begun and not ended.
    pub fn unfinished(&self) -> bool {
        self.length.is_some() || !self.arrived.is_empty()
    }

    /// How many bytes lie here, of a frame not yet whole.
    pub fn held(&self) -> usize {
        self.arrived.len()
    }

    /// Takes `<len>:` off the front, when it is there.
    fn prefix(&mut self) -> Result<Option<usize>, Malformed> {
        let seen = &self.arrived[..self.arrived.len().min(PREFIX_MAX)];
        let Some(colon) = seen.iter().position(|byte| *byte == b':') else {
            let hopeful = seen.len() < PREFIX_MAX && seen.iter().all(u8::is_ascii_digit);
            return if hopeful { Ok(None) } else { Err(Malformed) };
        };
        let length = usize::try_from(bt::natural(&seen[..colon])?).map_err(|_| Malformed)?;
        if !(1..=FRAME_MAX).contains(&length) {
            return Err(Malformed);
        }
        self.arrived.advance(colon + 1);
        Ok(Some(length))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(id: i64, endpoint: &str, body: &[u8]) -> Frame {
        Frame::Command { id, endpoint: endpoint.into(), body: Bytes::copy_from_slice(body) }
    }

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, Malformed> {
        let mut reader = Reader::default();
        reader.take(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_libquics_byte_for_byte() {
        let pong = Bytes::from_static(b"pong");
        for (frame, bytes) in [
            (command(0, "snode_ping", b""), &b"23:l1:Ci0e10:snode_ping0:e"[..]),
            (Frame::Reply { id: 0, body: pong.clone() }, b"14:l1:Ri0e4:ponge"),
            (Frame::Error { id: 12, body: pong }, b"15:l1:Ei12e4:ponge"),
            (command(-1, "", b"\x00:e"), b"16:l1:Ci-1e0:3:\x00:ee"),
        ] {
            assert_eq!(frame.write().unwrap(), bytes);
            assert_eq!(read(bytes), Ok(vec![frame]));
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_stream() {
        for bytes in [
            "x",
            ":",
            "0:",
            "-1:",
            "+1:l",
            "01:l",
            "10000001:",
            "9999999999",
            "12345678901",
            "2:le",
            "12:l1:Ri0e4:pong",
            "13:l1:Ri0e4:pong",
            "14:l1:Xi0e4:ponge",
            "14:l1:Ri0e5:ponge",
            "15:l1:Ri00e4:ponge",
            "15:l1:Ri-0e4:ponge",
            "15:l1:Ri0e4:pongex",
            "16:l1:Ri0e4:pongi1e",
            "14:d1:Ri0e4:ponge",
            "34:l1:Ri18446744073709551615e5:ponge1",
            "11:l1:Ci0e0:e1",
        ] {
            let end = read(format!("{bytes}9:").as_bytes());
            assert!(end.is_err(), "{bytes}: {end:?}");
        }
        assert_eq!(read(b"13:l1:Ci0e1:\xff0:e"), Err(Malformed));
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_come() {
        assert_eq!(read(b"10000000:"), Ok(vec![]));
        assert_eq!(read(b"10000001:"), Err(Malformed));
        assert_eq!(read(b"123456789"), Ok(vec![]));
        assert_eq!(read(b"1234567890"), Err(Malformed));
    }

    #[test]
    fn a_body_may_fill_a_frame_and_no_more() {
        let filled = FRAME_MAX - "l1:Ri0e9999980:e".len();
        let frame = Frame::Reply { id: 0, body: vec![7; filled].into() };
        assert_eq!(read(&frame.write().unwrap()), Ok(vec![frame]));
        assert_eq!(Frame::Reply { id: 0, body: vec![7; filled + 1].into() }.write(), Err(Malformed));
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let body = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        (any::<i64>(), 0..3, "[ -~]{0,20}", body).prop_map(|(id, kind, endpoint, body)| match kind {
            0 => Frame::Command { id, endpoint, body },
            1 => Frame::Reply { id, body },
            _ => Frame::Error { id, body },
        })
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_however_they_are_cut(frames in prop::collection::vec(frames(), 0..6), piece in 1usize..40) {
            let sent: Vec<u8> = frames.iter().flat_map(|frame| frame.write().unwrap()).collect();
            let mut reader = Reader::default();
            let mut arrived = Vec::new();
            for bytes in sent.chunks(piece) {
                reader.take(bytes);
                while let Some(frame) = reader.frame().unwrap() {
                    arrived.push(frame);
                }
            }
            prop_assert_eq!(arrived, frames);
            prop_assert_eq!(reader.held(), 0);
        }

        #[test]
        fn what_is_read_is_written_the_same(flips in prop::collection::vec((0usize..26, any::<u8>()), 0..4)) {
            let mut bytes = b"23:l1:Ci0e10:snode_ping0:e".to_vec();
            flips.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            if let Ok(frames) = read(&bytes) {
                let written: Vec<u8> = frames.iter().flat_map(|frame| frame.write().unwrap()).collect();
                prop_assert!(bytes.starts_with(&written));
            }
        }

        #[test]
        fn no_bytes_make_it_fall(bytes in prop::collection::vec(prop::sample::select(&b"0123456789:lidCREe-\xff"[..]), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
