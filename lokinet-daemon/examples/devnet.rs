//! `lokinet devnet` alone, to try the laboratory with any program as the nodes' daemon: `devnet up --daemon PROGRAM`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lokinet_daemon::devnet::{DevnetArgs, run};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A network of real daemons on this machine
    Devnet(DevnetArgs),
}

fn main() -> ExitCode {
    let Verb::Devnet(args) = Cli::parse().verb;
    run(args)
}
