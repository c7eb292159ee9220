//! The daemon's log: where it goes and how much of it. Lines of other crates are kept to themselves below `debug`, since
//! they may name addresses (law 8); under systemd the journal has the time already. Neighbours: `run` starts it.

use crate::config::{LogKind, LogLevel, Logging};
use crate::trouble::{OrTrouble, Outcome};
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Begins to log as the configuration says.
pub fn start(logging: &Logging) -> Outcome<()> {
    let level = logging.level;
    let ours = match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level >= LogLevel::Debug { "warn" } else { "off" };
    let filter = EnvFilter::new(format!("{others},lokinet_core={ours},lokinet_daemon={ours}"));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_target(level >= LogLevel::Debug);
    match &logging.kind {
        LogKind::Print => {
            let format = format.with_ansi(std::io::stdout().is_terminal());
            if std::env::var_os("JOURNAL_STREAM").is_some() {
                format.without_time().init();
            } else {
                format.init();
            }
        }
        LogKind::File(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path);
            let file = file.or_trouble(|| format!("[logging] file: cannot write {}", path.display()))?;
            format.with_ansi(false).with_writer(Mutex::new(file)).init();
        }
    }
    Ok(())
}
