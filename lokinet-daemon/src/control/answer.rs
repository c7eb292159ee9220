//! What the control calls return: the node's report as JSON, under the ancestor's names where it had them. Neighbours:
//! `control` reads the calls, `view` and devnet read these answers.

use lokinet_core::node::report::{PathReport, Report, SessionReport};
use lokinet_core::wire::address::snode;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// `llarp.version`.
pub fn version(uptime: Duration) -> Value {
    json!({ "version": env!("CARGO_PKG_VERSION"), "uptime": millis(uptime) })
}

/// `llarp.get_status`: the short view.
pub fn short_status(report: &Report, uptime: Duration) -> Value {
    let (built, failed) = (counter(report, "paths begun"), counter(report, "paths failed"));
    let ratio = if built == 0 { 1.0 } else { (built - failed.min(built)) as f64 / built as f64 };
    let mut status = json!({
        "running": true,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": millis(uptime),
        "numPathsBuilt": report.paths.iter().filter(|path| path.state == "live").count(),
        "numPeersConnected": report.links.len(),
        "numRoutersKnown": report.contacts,
        "ratio": ratio,
        "authCodes": {},
        "exitMap": {},
        "networkReady": report.ready,
        "ready": report.ready,
        "published": report.published,
    });
    let name = if report.relay { "snodeAddress" } else { "lokiAddress" };
    status[name] = json!(report.address);
    status
}

/// `llarp.status`: the whole view.
pub fn status(report: &Report, uptime: Duration) -> Value {
    let mut status = short_status(report, uptime);
    let counters: Map<String, Value> =
        report.counters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let links: Vec<Value> = report
        .links
        .iter()
        .map(|link| {
            let router = link.relay.then(|| snode(&link.peer));
            json!({ "router": router, "remoteAddr": link.remote, "outbound": link.dialled })
        })
        .collect();
    status["role"] = json!(if report.relay { "relay" } else { "client" });
    status["numRoutersRegistered"] = json!(report.registered);
    status["links"] = json!(links);
    status["counters"] = Value::Object(counters);
    if report.relay {
        status["transitPaths"] = json!(report.transit);
    } else {
        status["paths"] = paths(report);
        status["remoteSessions"] = report.sessions.iter().map(session).collect();
    }
    status
}

/// `lokinet.paths`: our own paths, hop by hop.
pub fn paths(report: &Report) -> Value {
    report.paths.iter().map(|path| path_(path, &report.sessions)).collect()
}

fn path_(path: &PathReport, sessions: &[SessionReport]) -> Value {
    let hops: Vec<Value> =
        path.hops.iter().map(|(id, addr)| json!({ "router": snode(id), "ip": addr.map(|addr| addr.ip()) })).collect();
    let ids = path.hops.iter().map(|(id, _)| *id);
    let target = sessions.iter().find(|session| {
        path.purpose == "rendezvous" && session.remote.is_some() && session.route.iter().copied().eq(ids.clone())
    });
    json!({
        "hops": hops,
        "purpose": path.purpose,
        "status": path.state,
        "latencyMs": path.round_trip.map(|time| time.as_secs_f64() * 1000.0),
        "expiresInSeconds": path.remaining.as_secs(),
        "cellsSent": path.cells.0,
        "cellsReceived": path.cells.1,
        "target": target.and_then(|session| session.remote.clone()),
    })
}

fn session(session: &SessionReport) -> Value {
    let route: Vec<String> = session.route.iter().map(snode).collect();
    json!({
        "remote": session.remote,
        "ip": session.lease,
        "inbound": session.inbound,
        "state": session.state,
        "route": route,
    })
}

fn counter(report: &Report, name: &str) -> u64 {
    report.counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lokinet_core::wire::id::RelayId;

    #[test]
    fn a_path_names_whom_it_leads_to_and_every_hop() {
        let hops =
            vec![(RelayId([1; 32]), Some("10.1.0.1:1090".parse().expect("an address"))), (RelayId([2; 32]), None)];
        let path = |purpose| PathReport {
            hops: hops.clone(),
            purpose,
            state: "live",
            round_trip: Some(Duration::from_micros(12_500)),
            remaining: Duration::from_secs(60),
            cells: (1, 2),
        };
        let session = SessionReport {
            remote: Some("x.loki".into()),
            lease: None,
            inbound: false,
            state: "open",
            route: hops.iter().map(|(id, _)| *id).collect(),
        };
        let report =
            Report { paths: vec![path("general"), path("rendezvous")], sessions: vec![session], ..Report::default() };
        let said = paths(&report);
        assert_eq!(said[0]["target"], Value::Null);
        assert_eq!(said[1]["target"], "x.loki");
        assert_eq!(said[1]["latencyMs"], 12.5);
        assert_eq!(said[1]["hops"][0]["ip"], "10.1.0.1");
        assert_eq!(said[1]["hops"][1]["router"], snode(&RelayId([2; 32])));
    }

    #[test]
    fn a_relay_has_no_loki_address() {
        let report = Report { relay: true, address: "x.snode".into(), ..Report::default() };
        let said = short_status(&report, Duration::ZERO);
        assert_eq!((&said["snodeAddress"], &said["lokiAddress"]), (&json!("x.snode"), &Value::Null));
    }
}
