//! `session-registry`: stands in for oxend on a private network. Reads the command line, and serves the list of nodes
//! until it is told to stop.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use session_stream::registry::http;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Tells the nodes of a private network of each other, in the place of oxend: who comes is a node, and swarms are assigned
/// as on the public network. Whoever can reach it can come: keep it off public networks.
///
/// Exit status: 0 when it was told to stop (SIGTERM, SIGINT), 1 when it could not start, 2 when the command line makes no
/// sense.
#[derive(Parser)]
#[command(name = "session-registry", version)]
struct Options {
    /// Where to listen, TCP
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:22023")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options.listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("session-registry: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(at: SocketAddr) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let listener = TcpListener::bind(at)
            .await
            .map_err(|error| format!("TCP {at}: {error}; stop what listens there, or choose another --listen"))?;
        eprintln!("session-registry: serves http://{at}/json_rpc");
        tokio::select! {
            () = http::serve(listener) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
