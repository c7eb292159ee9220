//! What the person at the terminal sees: progress with elapsed times on standard error, results on standard output, colours
//! only where a terminal shows them. Nothing here fails: a closed pipe is no reason to leave namespaces behind.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// A wait says what it waits for after this, and then each time it doubles.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Standard output and standard error, and a stopwatch.
pub struct Screen {
    began: Instant,
    colour: bool,
    colour_errors: bool,
}

impl Screen {
    /// Starts the stopwatch.
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            began: Instant::now(),
            colour: wanted && std::io::stdout().is_terminal(),
            colour_errors: wanted && std::io::stderr().is_terminal(),
        }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A line of result.
    pub fn say(&self, line: impl Display) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// A line of result that stands out.
    pub fn headline(&self, line: impl Display) {
        if self.colour { self.say(format_args!("\x1b[1m{line}\x1b[0m")) } else { self.say(line) }
    }

    /// A remark under a result.
    pub fn aside(&self, line: impl Display) {
        if self.colour { self.say(format_args!("\x1b[2m{line}\x1b[0m")) } else { self.say(line) }
    }

    /// A line of progress.
    pub fn progress(&self, line: impl Display) {
        let time = seconds(self.elapsed());
        let (dim, plain) = if self.colour_errors { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(std::io::stderr(), "{dim}{time:>8}{plain}  {line}");
    }

    /// What went wrong.
    pub fn complain(&self, line: impl Display) {
        let (red, plain) = if self.colour_errors { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(std::io::stderr(), "{red}devnet:{plain} {line}");
    }
}

/// A time as people read it.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A wait that speaks up, less and less often.
pub struct Wait {
    began: Instant,
    next: Duration,
}

impl Wait {
    /// Begins now.
    pub fn new() -> Self {
        Self { began: Instant::now(), next: FIRST_WORD }
    }

    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether it is time to say what is waited for.
    pub fn speaks(&mut self) -> bool {
        let speaks = self.elapsed() >= self.next;
        if speaks {
            self.next *= 2;
        }
        speaks
    }
}
