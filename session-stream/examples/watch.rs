//! Prints the messages of a mailbox as they arrive.
//!
//! ```text
//! cargo run -p session-stream --example watch -- --seed 0101…01 --node 127.0.0.1:22020=<the node's Ed25519 key, hex>
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use data_encoding::HEXLOWER_PERMISSIVE;
use session_stream::client::watch::Event;
use session_stream::client::{Client, Owner, Recipient, Route, Target};

/// Prints the messages of a mailbox as they arrive.
#[derive(Parser)]
struct Options {
    /// The account's Ed25519 seed, 64 hexadecimal digits
    #[arg(long)]
    seed: String,

    /// The account is a group's
    #[arg(long)]
    group: bool,

    /// A node that is asked first, HOST:PORT=KEY; may be given several times
    #[arg(long = "node", required = true)]
    nodes: Vec<String>,

    /// Reach nodes by their .snode names, through the router
    #[arg(long)]
    router: bool,

    /// Namespaces
    #[arg(long, default_values_t = [0i16], value_delimiter = ',', allow_negative_numbers = true)]
    namespaces: Vec<i16>,

    /// Store this text first
    #[arg(long)]
    say: Option<String>,
}

fn key(hex: &str) -> Result<[u8; 32], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("{hex}: no key; 64 hexadecimal digits are one"))
}

fn target(text: &str) -> Result<Target, String> {
    let shape = || format!("--node {text}: write HOST:PORT=KEY");
    let (at, hex) = text.split_once('=').ok_or_else(shape)?;
    let (host, port) = at.rsplit_once(':').ok_or_else(shape)?;
    let port = port.parse().map_err(|_| shape())?;
    Ok(Target { key: key(hex)?, host: host.trim_matches(['[', ']']).to_owned(), port })
}

async fn watch(options: Options) -> Result<(), String> {
    let seed = key(&options.seed)?;
    let owner = Arc::new(if options.group { Owner::group(&seed) } else { Owner::session(&seed) });
    let nodes = options.nodes.iter().map(|text| target(text)).collect::<Result<_, _>>()?;
    let route = if options.router { Route::Router } else { Route::Address };
    let client = Client::new(nodes, route).map_err(|error| error.to_string())?;
    eprintln!("account {}", owner.account().hex());
    if let Some(text) = &options.say {
        let to = Recipient::Owner(&owner);
        let stored = client.store(&to, options.namespaces[0], text.as_bytes(), Duration::from_secs(86_400)).await;
        let stored = stored.map_err(|error| error.to_string())?;
        eprintln!("stored {} at {} nodes", stored.hash, stored.members);
    }
    let mut watch = client.watch(&owner, &options.namespaces);
    loop {
        match watch.event().await {
            Some(Event::Subscribed) => eprintln!("subscribed"),
            Some(Event::Message(message)) => {
                let text = String::from_utf8_lossy(&message.data);
                #[allow(clippy::print_stdout)] // what the program is for
                {
                    println!("{} {} {} {text}", message.namespace, message.timestamp, message.hash);
                }
            }
            Some(Event::Refused(words)) => return Err(format!("the subscription was refused: {words}")),
            None => return Ok(()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match watch(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
