//! What this process costs, as the kernel counts it. The only place here that asks the real clock. Neighbour: `scale`.

use std::time::Instant;

/// Kernel ticks in a second, as `/proc` shows them.
const TICKS: f64 = 100.0;

/// The real clock, for measuring.
#[allow(clippy::disallowed_methods)] // A measurement of the machine, not of the protocol.
pub fn now() -> Instant {
    Instant::now()
}

/// Processor time spent by this process, in user mode and in the kernel, in seconds; 0 where the kernel does not tell.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: state is the first field, utime and stime the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS
}

/// The most memory this process has held so far, in bytes; 0 where the kernel does not tell.
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}
