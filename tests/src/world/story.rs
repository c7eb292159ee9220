//! What happened, in order, without contents: who did what with whom and how big it was, and a running digest of
//! every byte. Two runs with one seed have one digest. When a scenario fails, the story's tail says why.
//! Neighbours: `world` tells it everything; `eyes` keeps the contents, for the tests that want them.

use lokinet_core::time::Time;
use std::collections::VecDeque;
use std::fmt::Write;

/// Lines kept; older ones are forgotten, the digest is not.
const LINES: usize = 100_000;
/// Lines of a tail printed as text.
const TAIL: usize = 120;
/// Arrows of a tail drawn as a diagram.
const ARROWS: usize = 60;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Time,
    /// Whose doing, as a host's index.
    pub(super) who: usize,
    /// With whom, where that is known.
    pub(super) whom: Option<usize>,
    /// What.
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// How big each is, in bytes.
    pub size: usize,
}

/// The record and its digest.
pub(super) struct Story {
    lines: VecDeque<Line>,
    digest: u64,
}

impl Story {
    pub fn new(seed: u64) -> Story {
        Story { lines: VecDeque::new(), digest: mixed(0xcbf2_9ce4_8422_2325, seed) }
    }

    pub fn tell(&mut self, line: Line) {
        for word in [line.at.nanos(), line.who as u64, line.whom.map_or(0, |w| w as u64 + 1)] {
            self.digest = mixed(self.digest, word);
        }
        self.hear(line.what.as_bytes());
        self.digest = mixed(self.digest, line.count as u64);
        self.digest = mixed(self.digest, line.size as u64);
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Takes contents into the digest.
    pub fn hear(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut whole = [0; 8];
            whole.copy_from_slice(word);
            self.digest = mixed(self.digest, u64::from_le_bytes(whole));
        }
        for byte in words.remainder() {
            self.digest = mixed(self.digest, u64::from(*byte));
        }
        self.digest = mixed(self.digest, bytes.len() as u64);
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> + ExactSizeIterator {
        self.lines.iter()
    }

    pub fn text(&self, names: &[&str]) -> String {
        let mut text = String::new();
        for line in self.lines.iter().skip(self.lines.len().saturating_sub(TAIL)) {
            let millis = line.at.nanos() as f64 / 1e6;
            let whom = line.whom.map_or(String::new(), |w| format!(" {}", names[w]));
            let _ = writeln!(text, "{millis:>12.3} ms  {:<10} {}{whom}{}", names[line.who], line.what, line.sizes());
        }
        text
    }

    pub fn mermaid(&self, names: &[&str]) -> String {
        let mut text = String::from("sequenceDiagram\n");
        let arrows: Vec<&Line> = self.lines.iter().filter(|line| line.whom.is_some()).collect();
        for line in &arrows[arrows.len().saturating_sub(ARROWS)..] {
            let whom = names[line.whom.unwrap_or(line.who)];
            let _ = writeln!(text, "    {}->>{whom}: {}{}", names[line.who], line.what, line.sizes());
        }
        text
    }
}

impl Line {
    fn sizes(&self) -> String {
        match (self.count, self.size) {
            (0, _) => String::new(),
            (1, size) => format!(" {size} B"),
            (count, size) => format!(" {count} x {size} B"),
        }
    }
}

/// FNV-1a over words, with a fold so that high bits reach low ones. Not for enemies, only for comparing two runs.
fn mixed(state: u64, word: u64) -> u64 {
    let next = (state ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    next ^ (next >> 29)
}

impl super::World {
    /// Everything that happened, oldest first (the oldest of very long stories is forgotten).
    pub fn story(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.story.lines()
    }

    /// The story's tail, for people.
    pub fn story_text(&self) -> String {
        self.story.text(&self.by_index())
    }

    /// The story's tail as a mermaid sequence diagram.
    pub fn story_mermaid(&self) -> String {
        self.story.mermaid(&self.by_index())
    }

    /// What a failing run prints: its seed, and the tail of its story as text and as a drawing.
    pub fn obituary(&self) -> String {
        let (seed, digest, tally) = (self.seed, self.digest(), self.tally);
        let (text, drawing) = (self.story_text(), self.story_mermaid());
        format!("world of seed {seed}, digest {digest:016x}, {tally:?}\n{text}\n{drawing}")
    }
}

impl Drop for super::World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\n{}", self.obituary());
        }
    }
}
