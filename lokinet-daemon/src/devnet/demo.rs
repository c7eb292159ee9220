//! `devnet demo`: the main job on a network of its own. It raises one, does what the guide does, shows each command with its
//! output and time, and takes everything down. A failed demo leaves its logs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::plan::{Plan, RESOLVER};
use super::screen::{Screen, Wait, seconds};
use super::{Size, life, probe, up};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// What is downloaded.
const DOWNLOAD: u64 = 32 << 20;
/// How long one step may take.
const STEP_WITHIN: Duration = Duration::from_secs(180);

/// One step, as `--json` prints it.
#[derive(Default, Serialize)]
struct Step {
    name: &'static str,
    node: String,
    command: String,
    seconds: f64,
    output: String,
    ok: bool,
}

/// The whole document.
#[derive(Default, Serialize)]
struct Document {
    ok: bool,
    error: Option<String>,
    steps: Vec<Step>,
    path: Option<probe::Route>,
    service_path: Option<probe::Route>,
    service: Option<String>,
    service_ip: Option<String>,
    client: Option<String>,
    /// What `--net` did to the wire.
    net: Option<String>,
    seconds: f64,
    dir: String,
}

struct Demo<'a> {
    plan: Plan,
    screen: &'a Screen,
    json: bool,
    document: Document,
}

/// Runs it all, except the taking down when a signal comes: the caller does that.
pub async fn run(dir: &Path, size: &Size, json: bool, screen: &Screen) -> Outcome<()> {
    let began = Instant::now();
    if !json {
        let (relays, clients, services) = (size.relays, size.clients, size.services);
        screen.headline(format_args!(
            "A whole network on this machine: {relays} relays, {clients} client, {services} .loki site"
        ));
        if let Some(net) = &size.net.wanted {
            screen.headline(format_args!("over a bad wire: {net}"));
        }
    }
    let raised = match up::raise(dir, size, screen).await {
        Ok(raised) => raised,
        Err(trouble) => {
            if json {
                let error = Some(trouble.what.clone());
                let dir = dir.display().to_string();
                print(&Document { error, seconds: began.elapsed().as_secs_f64(), dir, ..Document::default() }, screen)?;
            }
            return Err(trouble);
        }
    };
    let raise_time = began.elapsed();
    let mut demo = Demo { plan: raised.plan.clone(), screen, json, document: Document::default() };
    demo.document.dir = dir.display().to_string();
    demo.document.net = demo.plan.net.map(|net| net.to_string());
    demo.document.client = demo.plan.node("client1")?.loki.clone();
    demo.record("up", "", "lokinet devnet up", raise_time, format!("{} nodes ready", raised.plan.nodes.len()), true);
    let result = demo.steps().await;
    let down = Instant::now();
    life::end(&raised.plan)?;
    demo.record("down", "", "lokinet devnet down", down.elapsed(), "nothing left".into(), true);
    demo.document.ok = result.is_ok();
    demo.document.error = result.as_ref().err().map(|trouble| trouble.what.clone());
    demo.document.seconds = began.elapsed().as_secs_f64();
    if json {
        print(&demo.document, screen)?;
    } else if result.is_ok() {
        screen.headline(format_args!("All of it worked, in {}; nothing is left behind.", seconds(began.elapsed())));
    }
    result
}

fn print(document: &Document, screen: &Screen) -> Outcome<()> {
    screen.say(serde_json::to_string_pretty(document).or_trouble(|| "cannot write JSON".into())?);
    Ok(())
}

impl Demo<'_> {
    async fn steps(&mut self) -> Outcome<()> {
        let at = format!("@{RESOLVER}");
        let own = own_program()?;
        let mut dig = vec!["dig", &at, "+short", "localhost.loki"];
        if !installed("dig") {
            dig = vec![&own, "devnet", "__resolve", RESOLVER, "localhost.loki"];
        }
        let answer = self.step("resolve", "service1", &dig).await?;
        let loki = answer.lines().map(|line| line.trim_end_matches('.')).find(|line| line.ends_with(".loki"));
        let ip = answer.lines().find(|line| line.trim().parse::<std::net::Ipv4Addr>().is_ok());
        let (Some(loki), Some(ip)) = (loki.map(str::to_string), ip.map(str::to_string)) else {
            return Err(self.failed("resolve", "service1", "the answer has no .loki name and IPv4 address"));
        };
        self.document.service = Some(loki.clone());
        self.document.service_ip = Some(ip.clone());

        let _server = self.serve(&own, &format!("{ip}:80")).await?;
        let url = format!("http://{loki}/");
        let curl = installed("curl");
        let get =
            if curl { vec!["curl", "-sS", "--max-time", "60", &url] } else { vec![&own, "devnet", "__fetch", &url] };
        let page = self.step("http", "client1", &get).await?;
        if !page.contains("Hello") {
            return Err(self.failed("http", "client1", "that is not the page service1 serves"));
        }

        if installed("ping") {
            self.step("ping", "client1", &["ping", "-n", "-c", "3", "-W", "5", &loki]).await?;
        } else {
            self.record("ping", "client1", "ping", Duration::ZERO, "skipped: ping is not installed here".into(), true);
        }
        self.show_path(&loki).await?;
        self.download(&own, &format!("{url}32M"), curl).await
    }

    /// The HTTP server at service1; it ends with the returned value.
    async fn serve(&mut self, own: &str, address: &str) -> Outcome<Child> {
        let began = Instant::now();
        let bytes = DOWNLOAD.to_string();
        let command = [own, "devnet", "__serve", address, "--bytes", &bytes];
        let mut server =
            self.command("service1", &command)?.spawn().or_trouble(|| "cannot run the HTTP server".into())?;
        let mut line = String::new();
        if let Some(output) = server.stdout.take() {
            let _ = tokio::time::timeout(STEP_WITHIN, BufReader::new(output).read_line(&mut line)).await;
        }
        let ok = line.starts_with("listening");
        self.record("serve", "service1", &shown(&command), began.elapsed(), line.trim().into(), ok);
        if ok { Ok(server) } else { Err(self.failed("serve", "service1", "the HTTP server does not start")) }
    }

    /// The whole way, as nobody in a real network can see it: each end knows its own half, and we ask both.
    async fn show_path(&mut self, loki: &str) -> Outcome<()> {
        let began = Instant::now();
        let (client, service) = (self.plan.node("client1")?.socket(), self.plan.node("service1")?.socket());
        let ours =
            probe::paths(&self.plan, &client, loki).await.into_iter().find(|path| path.target.as_deref() == Some(loki));
        let Some(ours) = ours else {
            self.record("path", "client1", "lokinet paths", began.elapsed(), "no path shown".into(), false);
            return Err(self.failed("path", "client1", "the daemon shows no path to the site"));
        };
        let theirs = probe::paths(&self.plan, &service, "")
            .await
            .into_iter()
            .find(|path| path.purpose.as_deref() == Some("inbound") && path.hops.last() == ours.hops.last());
        let mut text = format!("client1 -> {}", ours.hops.join(" -> "));
        if let Some(theirs) = &theirs {
            let way_in: Vec<&str> = theirs.hops.iter().rev().skip(1).map(String::as_str).collect();
            let _ = write!(text, " <- {} <- service1", way_in.join(" <- "));
        }
        if let Some(latency) = ours.latency_ms {
            let _ = write!(text, "   ({latency:.1} ms to the pivot and back)");
        }
        self.document.path = Some(ours);
        self.document.service_path = theirs;
        self.record("path", "client1", "lokinet paths", began.elapsed(), text, true);
        Ok(())
    }

    async fn download(&mut self, own: &str, url: &str, curl: bool) -> Outcome<()> {
        let curl_form = "%{size_download} %{speed_download}";
        let command = if curl {
            vec!["curl", "-sS", "--max-time", "170", "-o", "/dev/null", "-w", curl_form, url]
        } else {
            vec![own, "devnet", "__fetch", "--measure", url]
        };
        let answer = self.run("client1", &command).await?;
        let mut numbers = answer.output.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        let (size, speed) = (numbers.next().unwrap_or(0.0), numbers.next().unwrap_or(0.0));
        let ok = answer.ok && size == DOWNLOAD as f64;
        let mut text = format!("{:.1} MB at {:.1} MB/s ({:.0} Mbit/s)", size / 1e6, speed / 1e6, speed * 8.0 / 1e6);
        if !answer.ok {
            text = answer.output;
        }
        self.record("download", "client1", &shown(&command), answer.time, text, ok);
        if ok { Ok(()) } else { Err(self.failed("download", "client1", "the file did not arrive whole")) }
    }

    /// Runs a command at a node, shows it, and wants it to succeed.
    async fn step(&mut self, name: &'static str, node: &str, command: &[&str]) -> Outcome<String> {
        let answer = self.run(node, command).await?;
        let output = answer.output.trim_end().to_string();
        self.record(name, node, &shown(command), answer.time, output.clone(), answer.ok);
        if answer.ok { Ok(output) } else { Err(self.failed(name, node, "the command failed")) }
    }

    async fn run(&self, node: &str, command: &[&str]) -> Outcome<Answer> {
        let mut wait = Wait::new();
        let child = self.command(node, command)?.spawn().or_trouble(|| "cannot start this program again".into())?;
        let mut output = std::pin::pin!(child.wait_with_output());
        loop {
            tokio::select! {
                output = &mut output => {
                    let output = output.or_trouble(|| "cannot read the command's output".into())?;
                    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                    text.push_str(&String::from_utf8_lossy(&output.stderr));
                    return Ok(Answer { output: text, time: wait.elapsed(), ok: output.status.success() });
                }
                () = tokio::time::sleep(Duration::from_millis(250)) => {
                    if wait.elapsed() > STEP_WITHIN {
                        return Ok(Answer { output: "no end after 180 s".into(), time: wait.elapsed(), ok: false });
                    }
                    if wait.speaks() {
                        let program = shown(command.get(..1).unwrap_or_default());
                        self.screen.progress(format_args!("waiting for {program} at {node}"));
                    }
                }
            }
        }
    }

    fn command(&self, node: &str, command: &[&str]) -> Outcome<Command> {
        let mut exec = Command::new("/proc/self/exe");
        exec.args(["devnet", "--dir"]).arg(&self.plan.dir).args(["exec", node, "--"]).args(command);
        exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(exec)
    }

    fn record(&mut self, name: &'static str, node: &str, command: &str, time: Duration, output: String, ok: bool) {
        if !self.json {
            let place = if node.is_empty() { String::new() } else { format!("{node} ") };
            self.screen.headline(format_args!("\n{place}$ {command}"));
            for line in output.lines() {
                self.screen.say(format_args!("  {line}"));
            }
            self.screen.aside(format_args!("  {}{}", if ok { "" } else { "failed, " }, seconds(time)));
        }
        let (node, command) = (node.to_string(), command.to_string());
        self.document.steps.push(Step { name, node, command, seconds: time.as_secs_f64(), output, ok });
    }

    fn failed(&self, step: &str, node: &str, why: &str) -> Trouble {
        let log = self.plan.node(node).map(|node| node.log().display().to_string()).unwrap_or_default();
        let others = self.plan.dir.join("nodes");
        Trouble::new(format!(
            "the step {step:?} failed: {why}\n  {node}'s log: {log}\n  the others': {}/*/log",
            others.display()
        ))
    }
}

struct Answer {
    output: String,
    time: Duration,
    ok: bool,
}

/// The command as a person would type it: our own program by its name.
fn shown(command: &[&str]) -> String {
    let words = command.iter().enumerate().map(|(at, word)| match (at, *word) {
        (0, path) => path.rsplit('/').next().unwrap_or(path).to_string(),
        (_, word) if word.contains([' ', '%', '{']) => format!("'{word}'"),
        (_, word) => word.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn own_program() -> Outcome<String> {
    let path = std::env::current_exe().or_trouble(|| "cannot find this program's own file".into())?;
    path.into_os_string().into_string().map_err(|_| Trouble::new("this program's path is not UTF-8; move it"))
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
