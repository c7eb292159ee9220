//! What push is worth, and what a node bears: the time from a store to its message, pushed and polled; requests in a
//! second; memory with ten thousand subscriptions. The node is a process of its own (this program again), on loopback.
//!
//! ```text
//! cargo run --release -p session-stream --example bench            # everything, about two minutes
//! cargo run --release -p session-stream --example bench -- push    # or push, poll, requests, subscriptions
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::json;
use session_stream::account::Network;
use session_stream::bt;
use session_stream::client::watch::Event;
use session_stream::client::{Client, Link, Owner, Recipient, Route, Target};
use session_stream::http::{Http, Reach, Trust};
use session_stream::quic::endpoint;
use session_stream::serve::list::Source;
use session_stream::serve::{self, Settings};
use session_stream::store::Damaged;
use session_stream::value::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HOUR: Duration = Duration::from_secs(3600);
const SWARM: usize = 3;
const SUBSCRIPTIONS: usize = 10_000;
const PLACES: u8 = 40;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut args = std::env::args().skip(1);
    let done = match (runtime, args.next().as_deref()) {
        (Err(error), _) => Err(error.into()),
        (Ok(runtime), Some("node")) => runtime.block_on(node(args.next().unwrap_or_default().into())),
        (Ok(runtime), which) => runtime.block_on(bench(which.unwrap_or("all"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A node in this process; says where it is, and ends when its standard input does.
async fn node(data_dir: PathBuf) -> Outcome<()> {
    let list = data_dir.with_file_name("nodes.json");
    let settings = Settings {
        key: data_dir.join("key_ed25519"),
        data_dir,
        bind: HOME,
        https_port: 0,
        quic_port: 0,
        source: Source::File(list),
        network: Network::Main,
        store_max: 1 << 30,
        damaged: Damaged::Refuse,
        quic_each_max: 20_000,
        private: true,
        tests: None,
    };
    let server = serve::start(settings).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{} {} {}", HEXLOWER.encode(&server.key().0), server.https().port(), server.quic().port())?;
    out.flush()?;
    let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = gone.await;
    server.stop().await;
    Ok(())
}

/// A swarm of node processes; gone when dropped.
struct Swarm {
    directory: PathBuf,
    nodes: Vec<(Child, Target, u16)>,
}

impl Swarm {
    async fn up(count: usize) -> Outcome<Swarm> {
        let directory = std::env::temp_dir().join(format!("session-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut swarm = Swarm { directory, nodes: Vec::new() };
        for number in 0..count {
            swarm.begin(number)?;
        }
        let states: Vec<_> = swarm
            .nodes
            .iter()
            .map(|(_, target, https)| {
                json!({
                    "service_node_pubkey": HEXLOWER.encode(&target.key), "pubkey_ed25519": HEXLOWER.encode(&target.key),
                    "pubkey_x25519": HEXLOWER.encode(&target.key), "public_ip": "127.0.0.1", "storage_port": https,
                    "storage_lmq_port": target.port, "swarm_id": 7, "funded": true,
                })
            })
            .collect();
        let list = json!({
            "service_node_states": states, "height": 1, "block_hash": "00", "hardfork": 19, "snode_revision": 4,
        });
        std::fs::write(swarm.directory.join("nodes.json"), list.to_string())?;
        sleep(Duration::from_secs(3)).await;
        Ok(swarm)
    }

    fn begin(&mut self, number: usize) -> Outcome<()> {
        let data_dir = self.directory.join(number.to_string());
        std::fs::create_dir_all(&data_dir)?;
        for name in ["cert.pem", "key.pem"] {
            let _ = std::fs::copy(self.directory.join("0").join(name), data_dir.join(name));
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg(&data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("the node did not start");
        let key = HEXLOWER.decode(word()?.as_bytes())?.try_into().map_err(|_| "no key")?;
        let (https, port) = (word()?.parse()?, word()?.parse()?);
        self.nodes.push((child, Target { key, host: HOME.to_string(), port }, https));
        Ok(())
    }

    fn targets(&self) -> Vec<Target> {
        self.nodes.iter().map(|(_, target, _)| target.clone()).collect()
    }

    /// Resident memory of a node, in MiB.
    fn memory(&self, number: usize) -> Outcome<f64> {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(self.nodes[number].0.id().to_string()).join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for (child, _, _) in &mut self.nodes {
            drop(child.stdin.take());
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn bench(which: &str) -> Outcome<()> {
    let all = which == "all";
    if all || which == "push" || which == "poll" {
        let swarm = Swarm::up(SWARM).await?;
        let client = Client::new(swarm.targets(), Route::Address)?;
        let owner = Arc::new(Owner::session(&[1; 32]));
        if all || which == "push" {
            push(&client, &owner).await?;
        }
        if all || which == "poll" {
            poll(&client, &owner, Duration::from_secs(1), 20).await?;
            poll(&client, &owner, Duration::from_secs(10), 4).await?;
        }
    }
    if all || which == "requests" {
        requests().await?;
    }
    if all || which == "subscriptions" {
        subscriptions(100).await?;
        subscriptions(1_000).await?;
        subscriptions(10_000).await?;
    }
    Ok(())
}

fn say(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    let said = format!("{what:<46} median {:>9.2} ms   95 % {:>9.2} ms   of {}", at(50), at(95), times.len());
    tell(&said);
}

#[allow(clippy::print_stdout)] // what the program is for
fn tell(line: &str) {
    println!("{line}");
}

/// From the beginning of a store, over a connection that stands, to the message at another client.
async fn push(client: &Client, owner: &Arc<Owner>) -> Outcome<()> {
    let mut watch = client.watch(owner, &[0]);
    for _ in 0..SWARM {
        while !matches!(watch.event().await, Some(Event::Subscribed)) {}
    }
    let (mut pushed, mut stored) = (Vec::new(), Vec::new());
    for number in 0..200u32 {
        let began = Instant::now();
        let text = number.to_be_bytes();
        let to = Recipient::Owner(owner);
        let storing = client.store(&to, 0, &text, HOUR);
        let telling = async {
            let told = watch.message().await;
            (told, began.elapsed())
        };
        let (answer, (_, after)) = tokio::join!(storing, telling);
        answer?;
        stored.push(began.elapsed());
        pushed.push(after);
        sleep(Duration::from_millis(5)).await;
    }
    say("push, swarm of 3: from store to message", pushed);
    say("       and until the store is answered", stored);
    Ok(())
}

/// The same for a client that asks every so often.
async fn poll(client: &Client, owner: &Arc<Owner>, every: Duration, messages: u32) -> Outcome<()> {
    let (reader, its_owner) = (client.clone(), owner.clone());
    let (sender, mut arrived) = tokio::sync::mpsc::channel(64);
    let polling = tokio::spawn(async move {
        let mut last: Option<String> = None;
        loop {
            sleep(every).await;
            let Ok(new) = reader.retrieve_all(&its_owner, 2, last.as_deref()).await else { continue };
            for message in new {
                last = Some(message.hash.clone());
                let _ = sender.send((message.data, Instant::now())).await;
            }
        }
    });
    let mut times = Vec::new();
    for number in 0..messages {
        // Anywhere between two polls.
        sleep(every / 7 * (number % 7) + every / 14).await;
        let began = Instant::now();
        let text = [&number.to_be_bytes()[..], &every.as_secs().to_be_bytes()].concat();
        client.store(&Recipient::Owner(owner), 2, &text, HOUR).await?;
        while let Some((data, at)) = arrived.recv().await {
            if data == text {
                times.push(at - began);
                break;
            }
        }
    }
    polling.abort();
    say(&format!("polling every {} s", every.as_secs()), times);
    Ok(())
}

/// Requests a second at one node, 64 at a time. Every account is limited by address, and so are we: the node is asked
/// from many loopback addresses.
async fn requests() -> Outcome<()> {
    let swarm = Swarm::up(1).await?;
    let target = swarm.targets().remove(0);
    const EACH: usize = 400;
    for (net, what) in [(1, "info"), (2, "store"), (3, "retrieve")] {
        let mut tasks = JoinSet::new();
        for place in 1..=32u8 {
            let target = target.clone();
            tasks.spawn(async move {
                let from = endpoint((Ipv4Addr::new(127, 1, net, place), 0).into(), None)?;
                let link = Arc::new(Link::connect(&from, &target).await?);
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>((from, link, place))
            });
        }
        let mut links = Vec::new();
        while let Some(link) = tasks.join_next().await {
            links.push(link??);
        }
        let began = Instant::now();
        let mut asking = JoinSet::new();
        for (from, link, place) in links {
            for half in 0..2u8 {
                let (link, from) = (link.clone(), from.clone());
                let owner = Owner::session(&[place; 32]);
                asking.spawn(async move {
                    let mut done = 0u32;
                    for number in 0..EACH / 2 {
                        let params = match what {
                            "info" => json!({}),
                            "store" => storing(&owner, half, number),
                            _ => retrieving(&owner),
                        };
                        done += u32::from(link.call(what, &params).await.is_ok());
                    }
                    drop(from);
                    done
                });
            }
        }
        let done: u32 = asking.join_all().await.into_iter().sum();
        let rate = f64::from(done) / began.elapsed().as_secs_f64();
        tell(&format!(
            "{what:<10} over QUIC, 64 at a time, one node        {rate:>9.0} a second ({done} of {})",
            EACH * 32
        ));
    }
    let http = Http::new()?;
    let url = format!("https://127.0.0.1:{}/storage_rpc/v1", swarm.nodes[0].2);
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < Duration::from_secs(2) {
        let body = Some((r#"{"method":"info","params":{}}"#.into(), "application/json"));
        done += u32::from(http.ask(&url, body, 1 << 20, Trust::Nobody, Reach::Anywhere).await?.status == 200);
    }
    tell(&format!("info       over HTTPS, a connection each, one by one {:>8.0} a second", f64::from(done) / 2.0));
    Ok(())
}

fn storing(owner: &Owner, half: u8, number: usize) -> serde_json::Value {
    let timestamp = wall();
    let data = [&[half][..], &number.to_be_bytes(), &[7; 200]].concat();
    json!({
        "pubkey": owner.account().hex(), "timestamp": timestamp, "ttl": 3_600_000,
        "data": data_encoding::BASE64.encode(&data),
    })
}

fn retrieving(owner: &Owner) -> serde_json::Value {
    let timestamp = wall();
    let mut params = json!({"pubkey": owner.account().hex(), "timestamp": timestamp, "max_count": 10});
    owner.sign_into(&mut params, &format!("retrieve{timestamp}"));
    params
}

/// A node's memory with ten thousand subscriptions, spread over so many connections.
async fn subscriptions(connections: usize) -> Outcome<()> {
    let swarm = Swarm::up(1).await?;
    let target = swarm.targets().remove(0);
    let before = swarm.memory(0)?;
    let began = Instant::now();
    // Subscriptions, too, are limited by address, so they come from many.
    let places = (1..=PLACES).map(|place| endpoint((Ipv4Addr::new(127, 0, 2, place), 0).into(), None));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let mut links = Vec::new();
    for number in 0..connections {
        links.push(Link::connect(&places[number % places.len()], &target).await?);
    }
    let connected = swarm.memory(0)?;
    for number in 0..SUBSCRIPTIONS {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let owner = Owner::session(&seed);
        let answer = links[number % connections].request("monitor", subscription(&owner).into()).await?;
        if &answer[..] != b"d7:successi1ee" {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
    }
    let after = swarm.memory(0)?;
    tell(&format!(
        "{SUBSCRIPTIONS} subscriptions on {connections} connections: {after:.0} MiB ({before:.0} before, {connected:.0} connected), {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn subscription(owner: &Owner) -> Vec<u8> {
    let seconds = wall() / 1000;
    let signature = owner.sign(&format!("MONITOR{}{seconds}10", owner.account().hex()));
    bt::write(&Value::dict([
        ("P", Value::Bytes(owner.ed25519().unwrap_or_default().to_vec())),
        ("d", Value::Int(1)),
        ("n", Value::List(vec![Value::Int(0)])),
        ("s", Value::Bytes(signature.to_vec())),
        ("t", seconds.into()),
    ]))
}

#[allow(clippy::disallowed_methods)] // a client asks its host what time it is
fn wall() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
