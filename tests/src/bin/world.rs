//! Runs a large town for an hour and prints what came of it. `--help` says what can be asked.

use clap::Parser;
use core::time::Duration;
use lokinet_tests::scale::{self, Figures, Plan, Progress, directory, process};

/// A town of real nodes with real cryptography, in one process, on a clock of its own.
#[derive(Parser)]
struct Asked {
    /// Relays.
    #[arg(long, default_value_t = 100)]
    relays: usize,
    /// Clients, each with four paths of its own.
    #[arg(long, default_value_t = 30)]
    clients: usize,
    /// Services; the first thirty clients talk with them.
    #[arg(long, default_value_t = 30)]
    services: usize,
    /// How long, in virtual minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// How many of a hundred relays are killed each minute.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// How long a killed relay stays away, in seconds.
    #[arg(long, default_value_t = 10)]
    away: u64,
    /// What everything follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints one line of JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Reckons the directory's cost for so many relays, too (0: does not).
    #[arg(long, default_value_t = 10_000)]
    directory: usize,
}

/// A line of progress after so many seconds of the real clock.
const PROGRESS: Duration = Duration::from_secs(5);

#[allow(clippy::print_stdout)] // Its purpose.
fn main() {
    let asked = Asked::parse();
    let plan = Plan {
        relays: asked.relays,
        clients: asked.clients,
        services: asked.services,
        minutes: asked.minutes,
        churn: asked.churn,
        away: Duration::from_secs(asked.away),
        seed: asked.seed,
    };
    let (began, mut told) = (process::now(), process::now());
    let figures = scale::run(&plan, &mut |progress: &Progress| {
        if told.elapsed() >= PROGRESS {
            told = process::now();
            let Progress { passed, steps, queued, builds: (ended, failed) } = progress;
            eprintln!(
                "{:>4} s: {} of {} min, {steps} events, {queued} queued, {ended} builds, {failed} failed, {} MiB",
                began.elapsed().as_secs(),
                passed.as_secs() / 60,
                plan.minutes,
                process::memory() >> 20,
            );
        }
    });
    let cost = if asked.directory > 0 { directory::cost(asked.directory) } else { None };
    let text = if asked.json { json(&plan, &figures, cost) } else { text(&plan, &figures, cost) };
    println!("{text}");
}

fn success(figures: &Figures) -> f64 {
    let (ended, failed) = figures.builds;
    100.0 * (1.0 - failed as f64 / ended.max(1) as f64)
}

fn text(plan: &Plan, figures: &Figures, cost: Option<directory::Cost>) -> String {
    let Figures { builds, beats, directory, gossip, cpu, .. } = figures;
    let awake = figures.awake.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    let kb = |bytes: u64| bytes as f64 / 1000.0;
    let mut lines = vec![
        format!(
            "world of {} relays, {} clients, {} services for {} min, seed {}, {} % of relays killed each minute, \
             back after {} s ({} killed)",
            plan.relays,
            plan.clients,
            plan.services,
            plan.minutes,
            plan.seed,
            plan.churn,
            plan.away.as_secs(),
            figures.killed
        ),
        format!("everybody ready and published after    {awake}"),
        format!(
            "builds that succeeded                  {:.2} % of {} ({} failed)",
            success(figures),
            builds.0,
            builds.1
        ),
        format!(
            "between two echoes, one beat a second  longest {:.2} s, p99 {:.2} s, {} over 2 s; {} of {} beats back, \
             {} pairs ({} and {} callers were denied and failed at first)",
            figures.longest.as_secs_f64(),
            figures.p99.as_secs_f64(),
            figures.long,
            beats.1,
            beats.0,
            figures.pairs,
            figures.denied.0,
            figures.denied.1
        ),
        format!(
            "directory, one client                  {:.0} kB until ready, then {:.0} kB/h",
            kb(directory.0),
            kb(directory.1)
        ),
        format!(
            "directory, one relay                   {:.0} kB/h told unasked, {:.0} kB/h answered",
            kb(gossip.0),
            kb(gossip.1)
        ),
        format!(
            "cost                                   {:.0} CPU-s ({:.0} until ready), {:.0} s of wall, {} events, \
             {:.0} events per CPU-s",
            cpu.1,
            cpu.0,
            figures.wall,
            figures.steps,
            figures.steps as f64 / cpu.1.max(0.01)
        ),
        format!(
            "memory                                 {:.0} MB, {:.0} kB per node",
            figures.memory as f64 / 1e6,
            kb(figures.memory) / figures.nodes.max(1) as f64
        ),
    ];
    if let Some(cost) = cost {
        lines.push(format!(
            "directory of {} relays, one client: registry {:.0} kB, {:.3} CPU-s; contacts {:.1} MB, {:.2} CPU-s cold; \
             a round over a path {:.2} MB on its wire each ten minutes; {:.3} CPU-s to compare all told again",
            cost.relays,
            kb(cost.registry as u64),
            cost.registry_cpu,
            cost.contacts as f64 / 1e6,
            cost.cold_cpu,
            cost.over_path as f64 / 1e6,
            cost.again_cpu
        ));
    }
    lines.join("\n")
}

fn json(plan: &Plan, figures: &Figures, cost: Option<directory::Cost>) -> String {
    let cost = cost.map(|cost| {
        serde_json::json!({
            "relays": cost.relays,
            "registry_bytes": cost.registry,
            "registry_cpu_s": cost.registry_cpu,
            "contacts_bytes": cost.contacts,
            "cold_cpu_s": cost.cold_cpu,
            "again_cpu_s": cost.again_cpu,
            "over_path_bytes": cost.over_path,
        })
    });
    serde_json::json!({
        "relays": plan.relays,
        "clients": plan.clients,
        "services": plan.services,
        "minutes": plan.minutes,
        "churn_percent_per_minute": plan.churn,
        "away_s": plan.away.as_secs(),
        "seed": plan.seed,
        "awake_s": figures.awake.map(|time| time.as_secs_f64()),
        "killed": figures.killed,
        "builds": figures.builds.0,
        "builds_failed": figures.builds.1,
        "build_success_percent": success(figures),
        "gap_longest_s": figures.longest.as_secs_f64(),
        "gap_p99_s": figures.p99.as_secs_f64(),
        "gaps_over_2_s": figures.long,
        "beats": figures.beats.0,
        "beats_back": figures.beats.1,
        "pairs": figures.pairs,
        "callers_denied_at_first": figures.denied.0,
        "callers_failed_at_first": figures.denied.1,
        "directory_bytes_until_ready": figures.directory.0,
        "directory_bytes_per_hour": figures.directory.1,
        "relay_gossip_bytes_per_hour": figures.gossip.0,
        "relay_contacts_bytes_per_hour": figures.gossip.1,
        "cpu_s": figures.cpu.1,
        "cpu_s_until_ready": figures.cpu.0,
        "wall_s": figures.wall,
        "events": figures.steps,
        "memory_bytes": figures.memory,
        "nodes": figures.nodes,
        "directory": cost,
    })
    .to_string()
}
