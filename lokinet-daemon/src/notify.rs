//! What systemd is told (sd_notify(3)): readiness once programs can use the interface, a status line, and that the loop
//! still turns. Without systemd nothing happens. Neighbours: `run` feeds it the node's milestones.

use lokinet_core::driver::Handle;
use lokinet_core::node::report::Report;
use sd_notify::NotifyState;
use std::time::Duration;

/// How often the status line is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// TUN, names and control socket are up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// We are on our way down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// Renews the status line and feeds the watchdog for as long as the node's loop answers; a loop that hangs feeds nothing, and
/// systemd starts us anew.
pub async fn keep_telling(node: Handle) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |within| (within / 2).min(STATUS_EVERY));
    loop {
        let Some(report) = node.report().await else { return };
        status(&line(&report));
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(every).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // Nobody listens, or not any more: no reason to do anything else than we do.
    let _ = sd_notify::notify(state);
}

/// The status line: role, relays known and linked, paths; never a name or an address.
fn line(report: &Report) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (known, links) = (report.contacts, report.links.len());
    if report.relay {
        let clients = report.links.iter().filter(|link| !link.relay).count();
        let relays = links - clients;
        let transit = report.transit;
        return format!(
            "v{version} relay | known/linked/clients: {known}/{relays}/{clients} | {transit} paths through us"
        );
    }
    let live = report.paths.iter().filter(|path| path.state == "live").count();
    let sessions = report.sessions.len();
    let waits = if report.ready { "" } else { " | building the first path" };
    format!("v{version} client | known/linked: {known}/{links} | paths/conversations: {live}/{sessions}{waits}")
}
