//! What the last hop of a service's path, the last hop of a caller's, and the keepers of introsets learn about the
//! service: nothing that another service in its place would not have shown them alike.

use core::time::Duration;
use lokinet_core::crypto::blind;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::flow::question::Kind as Type;
use lokinet_core::wire::address::LokiAddress;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::control::Ask;
use lokinet_core::wire::fragment::Fragment;
use lokinet_core::wire::introset::{Envelope, INTROSET};
use lokinet_core::wire::request::Request;
use lokinet_tests::person::{first_address, loki_name, own_ip, ping, question};
use lokinet_tests::world::eyes::{Hop, STRING, shared, strings};
use lokinet_tests::world::{BEGINNING, Body, World};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = blind::PERIOD;

/// What relays saw of a service that was called and talked with, and what was stored and asked for.
struct Seen {
    address: [u8; 32],
    hops: Vec<Hop>,
    bodies: Vec<Body>,
}

/// A town whose `service1` is one or another, with all other things equal.
fn watch(seed: u64, other: bool) -> Seen {
    let mut world = World::new(seed);
    world.eyes(true);
    if other {
        world.disguise("service1", "quite another service");
    }
    let views = world.settle_in_glass(20, 2, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 20));
    world.run_for(SECOND * 5);
    let name = loki_name(&mut world, "service1");
    for client in ["client1", "client2"] {
        let theirs = first_address(world.ask(client, question(&name, Type::A)));
        let way = (own_ip(&mut world, client), theirs);
        for number in 1..=8 {
            assert!(ping(&mut world, client, way, number, SECOND));
        }
    }
    world.run_for(SECOND * 330);
    let hops = views.lock().unwrap().iter().filter(|hop| hop.accepted).cloned().collect();
    Seen { address: address(&name), hops, bodies: world.seen().bodies.clone() }
}

fn address(name: &str) -> [u8; 32] {
    LokiAddress::parse(name).unwrap().0
}

fn introsets(bodies: &[Body]) -> Vec<Envelope> {
    let stored = bodies.iter().filter(|body| !body.reply).filter_map(|body| match Request::decode(&body.bytes) {
        Ok(Request::Store(introset)) => Envelope::verify(introset, BEGINNING).ok(),
        _ => None,
    });
    stored.collect()
}

/// The questions that a hop was asked, in their clear.
fn questions(hop: &Hop) -> Vec<u8> {
    let control = hop.down_in.iter().filter(|cell| cell.kind == Some(Kind::Control));
    control
        .filter_map(|cell| Fragment::decode(&cell.body).ok().filter(|f| f.index == 0)?.bytes.first().copied())
        .collect()
}

fn has_token(hop: &Hop) -> bool {
    hop.purpose != Purpose::General
}

/// A cell as far as its seals show anything: direction, size, kind.
type Shape = (bool, Size, u8);

/// Everything a pivot was shown of one path, but for times and what is random: the header's plain fields, and the
/// shapes of its cells, each with how many there were.
fn shape(hop: &Hop) -> (u8, usize, BTreeMap<Shape, usize>) {
    let purpose = match hop.purpose {
        Purpose::General => 0,
        Purpose::Host(_) => 1,
        Purpose::Join(_) => 2,
    };
    let mut cells = BTreeMap::new();
    let down = hop.down_in.iter().map(|cell| (true, cell.size, cell.kind.map_or(0, |kind| kind as u8)));
    let up = hop.up_out.iter().map(|cell| (false, cell.size, cell.kind.map_or(0, |kind| kind as u8)));
    for shape in down.chain(up) {
        *cells.entry(shape).or_default() += 1;
    }
    (purpose, hop.build_in.len() + hop.deeper.len() + hop.reply_out.as_ref().map_or(0, |reply| reply.len()), cells)
}

#[test]
fn the_pivots_transcript_is_the_same_when_the_service_is_another() {
    let (mut compared, mut foreign) = (0, 0);
    for seed in 910..914 {
        let (one, other) = (watch(seed, false), watch(seed, true));
        assert_ne!(one.address, other.address);
        let pivots = |seen: &Seen| -> Vec<_> { seen.hops.iter().filter(|hop| has_token(hop)).map(shape).collect() };
        let (mut mine, mut theirs) = (pivots(&one), pivots(&other));
        mine.sort();
        theirs.sort();
        assert!(mine.len() >= 6, "only {} paths with tokens", mine.len());
        compared += mine.len();
        assert_eq!(mine, theirs, "seed {seed}: a pivot can tell which service it serves");
        for seen in [&one, &other] {
            let known = derived(seen);
            for hop in seen.hops.iter().filter(|hop| has_token(hop)) {
                foreign += 1;
                assert_eq!(
                    shared(&strings(hop.everything()), &known),
                    None,
                    "a pivot was shown a string of the service's"
                );
            }
        }
    }
    println!("{compared} pivots' transcripts are the same for two services; {foreign} have no string of theirs");
}

/// Everything that follows from a service's key: address, blinded keys, and all that was published under them.
fn derived(seen: &Seen) -> Vec<[u8; STRING]> {
    let period = blind::period(BEGINNING);
    let mut all: Vec<Vec<u8>> = vec![seen.address.to_vec()];
    all.extend((period - 1..=period + 1).filter_map(|n| blind::public(&seen.address, n)).map(|key| key.to_vec()));
    let mine = introsets(&seen.bodies);
    assert!(mine.len() >= 8, "only {} introsets were handed on", mine.len());
    all.extend(mine.iter().map(|envelope| envelope.signed.to_vec()));
    strings(all.iter().map(Vec::as_slice))
}

/// The pivot that joins callers to a service is asked nothing, and neither is the one that a caller is joined by: both
/// would learn the blinded key, and with it, if they know the address, whom they serve.
#[test]
fn who_holds_a_token_is_asked_nothing() {
    let seen = watch(915, false);
    let (mut tokens, mut asked) = (0, BTreeMap::<u8, usize>::new());
    let allowed: Vec<u8> = [Ask::Ping, Ask::Close].iter().map(|ask| ask.encode()[0]).collect();
    for hop in &seen.hops {
        let questions = questions(hop);
        if has_token(hop) {
            tokens += 1;
            assert!(
                questions.iter().all(|code| allowed.contains(code)),
                "a pivot with a token was asked {questions:?}"
            );
        } else {
            questions.into_iter().for_each(|code| *asked.entry(code).or_default() += 1);
        }
    }
    println!("{tokens} hops with a token; elsewhere questions by code: {asked:?}");
    let store = Ask::Store { at: seen.hops[0].peer, introset: vec![0; INTROSET].into() }.encode()[0];
    let find = Ask::Find { at: seen.hops[0].peer, key: [0; 32] }.encode()[0];
    assert!(tokens >= 6 && asked.contains_key(&store) && asked.contains_key(&find), "{asked:?}");
}

/// The relays that a service is met at are others than those it asks, where there is a choice of relays.
#[test]
fn a_service_is_met_and_asks_at_different_relays() {
    for seed in 916..922 {
        let mut world = World::town(seed, 20, 1, 1);
        assert!(world.awake(SECOND * 10));
        world.run_for(SECOND * 10);
        let report = world.report("service1");
        let last = |purpose: &str| -> BTreeSet<_> {
            report.paths.iter().filter(|path| path.purpose == purpose).map(|path| path.hops.last().unwrap().0).collect()
        };
        let (met, asked) = (last("inbound"), last("general"));
        assert!(met.len() >= 4 && asked.len() >= 2, "{} to be met on and {} to ask over", met.len(), asked.len());
        assert!(met.is_disjoint(&asked), "seed {seed}: a relay both joins callers and is asked");
    }
}

/// What keepers of adjacent periods hold has not a string in common, whatever part of it, and no field that is equal or
/// differs alike: else they would know that two blinded keys are one service's.
#[test]
fn keepers_cannot_link_a_service_across_periods() {
    let mut editions = 0;
    for seed in 922..925 {
        let seen = watch(seed, false);
        let all = introsets(&seen.bodies);
        let mut by_period = BTreeMap::<u64, Vec<&Envelope>>::new();
        all.iter().for_each(|envelope| by_period.entry(envelope.period).or_default().push(envelope));
        assert_eq!(by_period.len(), 2, "a service publishes for two periods");
        let mut kept = by_period.into_values();
        let (mine, theirs) = (kept.next().unwrap(), kept.next().unwrap());
        let mut steps = [Vec::new(), Vec::new()];
        for (side, kept) in [&mine, &theirs].into_iter().enumerate() {
            let revisions: BTreeSet<u64> = kept.iter().map(|envelope| envelope.revision).collect();
            let revisions: Vec<u64> = revisions.into_iter().collect();
            steps[side] = revisions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        }
        assert!(!steps[0].is_empty() && !steps[1].is_empty(), "one edition only");
        let alike = steps[0].iter().filter(|step| steps[1].contains(step)).count();
        assert!(alike * 4 <= steps[0].len(), "revisions rise alike in both periods: {steps:?}");
        for one in &mine {
            // Without the period's own number, which says nothing about whose it is.
            let clear = |envelope: &Envelope| [&envelope.signed[..33], &envelope.signed[41..]].concat();
            let mine = strings(core::iter::once(&clear(one)[..]));
            for other in &theirs {
                editions += 1;
                assert_eq!(shared(&mine, &strings(core::iter::once(&clear(other)[..]))), None);
                assert_ne!(one.revision, other.revision);
                assert!(one.revision.abs_diff(other.revision) > DAY.as_millis() as u64, "revisions lie side by side");
            }
        }
        let ends =
            |kept: &[&Envelope]| -> BTreeSet<u64> { kept.iter().map(|envelope| envelope.until.secs()).collect() };
        let common = ends(&mine).intersection(&ends(&theirs)).count();
        assert!(common * 3 <= ends(&mine).len(), "{common} editions of both periods end together");
    }
    println!("{editions} pairs of editions of adjacent periods have nothing in common");
}

/// Keepers hold an introset and its blinded key, and cannot read it; another service's address does not open it either.
#[test]
fn keepers_cannot_read_what_they_keep() {
    let seen = watch(925, false);
    let all = introsets(&seen.bodies);
    let mut chance = Chance::new([1; 32]);
    for envelope in &all {
        let inside = envelope.open(&seen.address).expect("who knows the address reads it");
        assert!(!inside.leases.is_empty());
        let stranger = Identity::generate(&mut chance).public();
        for address in [stranger, envelope.key, [0; 32]] {
            assert!(envelope.open(&address).is_none());
        }
        let clear = strings(core::iter::once(envelope.signed.as_ref()));
        let told: Vec<Vec<u8>> = inside
            .leases
            .iter()
            .flat_map(|lease| [lease.pivot.0.to_vec(), lease.token.to_vec()])
            .chain([inside.handshake.to_vec(), seen.address.to_vec()])
            .collect();
        assert_eq!(shared(&clear, &strings(told.iter().map(Vec::as_slice))), None, "something shows through");
    }
    assert!(all.len() >= 8);
}
