//! The command line: the ancestor's daemon options, and verbs for looking at a running router. Neighbours: `run` is the
//! daemon, `view` prints what a running one says, `config` generates and checks, `devnet` is the laboratory.

use crate::config::generate::{Generated, write_generated};
use crate::config::{self, Role};
use crate::control;
use crate::devnet::{self, DevnetArgs};
use crate::trouble::{OrTrouble, Outcome, Trouble};
use crate::{run, view};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// An onion router: a private IP network out of strangers' relays
///
/// Without a verb this is the daemon: it raises a TUN device, builds paths over relays and answers .loki names at
/// 127.3.2.1. `lokinet devnet demo` shows all of it on a network of its own, without touching this machine.
#[derive(Parser, Debug)]
#[command(name = "lokinet", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// The configuration file [default: /etc/loki/lokinet.ini as root, otherwise ~/.lokinet/lokinet.ini; made if absent]
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "CONFIG", hide = true, conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Write a configuration file with every option at its default, and stop; an existing one is left alone
    #[arg(short, long)]
    generate: bool,
    /// Let --generate replace an existing file
    #[arg(short, long, requires = "generate")]
    force: bool,
    /// Be a relay
    #[arg(short, long)]
    router: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

const AFTER_HELP: &str = "Exit codes: 0 done; 1 it failed, and standard error says why and what helps; 2 wrong usage.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// How the running router is: readiness, address, relays, paths, conversations
    Status(Asked),
    /// The paths of the running router: relays hop by hop, round trip, what for
    Paths(Asked),
    /// Read a configuration and say everything that is wrong with it
    Check {
        /// The configuration file
        file: Option<PathBuf>,
        /// Read it as a relay's
        #[arg(short, long)]
        router: bool,
    },
    /// A network of real daemons on this machine, without touching the host
    Devnet(DevnetArgs),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

#[derive(Args, Debug)]
struct Asked {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The router's control socket
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    socket: PathBuf,
}

/// Does what the command line says. Call it before any thread exists: devnet enters namespaces.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let role = if cli.router { Role::Relay } else { Role::Client };
    let result = match cli.verb {
        Some(Verb::Devnet(args)) => return devnet::run(args),
        Some(Verb::Status(asked)) => view::status(&asked.socket, asked.json),
        Some(Verb::Paths(asked)) => view::paths(&asked.socket, asked.json),
        Some(Verb::Check { file, router }) => check(file, if router { Role::Relay } else { Role::Client }),
        Some(Verb::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "lokinet", &mut std::io::stdout());
            Ok(())
        }
        Some(Verb::Man) => clap_mangen::Man::new(Cli::command())
            .render(&mut std::io::stdout())
            .or_trouble(|| "cannot write the manual page".into()),
        None => daemon(cli.file.or(cli.config), cli.generate, cli.force, role),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lokinet: {}", trouble.what);
            ExitCode::from(trouble.code)
        }
    }
}

fn daemon(named: Option<PathBuf>, generate: bool, force: bool, role: Role) -> Outcome<()> {
    let file = match &named {
        Some(file) => file.clone(),
        None => default_file()?,
    };
    if generate {
        return self::generate(&file, role, force);
    }
    if named.is_none() && !file.exists() {
        self::generate(&file, role, false)?;
    }
    run::run(&file, role)
}

fn default_file() -> Outcome<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/etc/loki/lokinet.ini".into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| Trouble::new("HOME is not set: name the configuration file, `lokinet CONFIG`"))?;
    Ok(Path::new(&home).join(".lokinet/lokinet.ini"))
}

fn generate(file: &Path, role: Role, force: bool) -> Outcome<()> {
    match write_generated(file, role, force).map_err(|complaint| Trouble::new(complaint.to_string()))? {
        Generated::Written => eprintln!("lokinet: wrote {}", file.display()),
        Generated::AlreadyThere => {
            eprintln!("lokinet: {} is there already and stays as it is (--force replaces it)", file.display());
        }
    }
    Ok(())
}

fn check(named: Option<PathBuf>, role: Role) -> Outcome<()> {
    let file = named.map_or_else(default_file, Ok)?;
    let (_, warnings) = config::load(&file, role).map_err(|complaints| Trouble::new(complaints.to_string()))?;
    for warning in &warnings {
        eprintln!("{warning}");
    }
    eprintln!("lokinet: {} is fine{}", file.display(), if warnings.is_empty() { "" } else { ", with these remarks" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_is_the_daemons_and_a_verb_is_a_verb() {
        let cli = Cli::try_parse_from(["lokinet", "-r", "/tmp/x.ini"]).expect("the daemon's options");
        assert!(cli.router && cli.verb.is_none() && cli.file == Some("/tmp/x.ini".into()));
        let cli = Cli::try_parse_from(["lokinet", "status", "--json"]).expect("a verb");
        assert!(matches!(cli.verb, Some(Verb::Status(Asked { json: true, .. }))));
        assert!(Cli::try_parse_from(["lokinet", "-f"]).is_err(), "--force alone means nothing");
    }
}
