//! A dishonest hop flips, repeats, cuts and misdirects cells. Downwards they die at the next honest hop and the path
//! lives on; upwards they die at the client, and no hop between can tell them from others.

use core::time::Duration;
use lokinet_core::path::PathKey;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::control::{Ask, Tell};
use lokinet_tests::row::{Cell, Row};
use lokinet_tests::world::eyes::{shared, strings};

const PATHS: usize = 1000;

fn row(count: usize) -> (Row, Vec<PathKey>) {
    let mut row = Row::new(3, [1; 32]);
    let keys = (0..count).map(|_| row.path(Purpose::General).expect("a path")).collect();
    (row, keys)
}

/// Asks the pivot something in cells of this size: they, as they left relay `at`.
fn asked(row: &mut Row, key: PathKey, size: Size, at: usize) -> Vec<Cell> {
    let (now, pivot) = (row.now.mono, row.network.contacts[2].id);
    let ask = match size {
        Size::Small => Ask::Ping,
        Size::Full => Ask::Store { at: pivot, introset: vec![5; 2201].into() },
    };
    row.paths.ask(key, &ask, &mut row.client, now).unwrap();
    let mut cells = row.sent();
    for relay in 0..=at {
        cells.iter().for_each(|cell| row.lower(relay, cell));
        cells = row.down(relay);
    }
    assert!(cells.len() == 1 + size as usize && cells.iter().all(|cell| cell.size == size), "{} cells", cells.len());
    cells
}

/// Whether a relay made anything of what it was given: passed it on, answered, or heard a question.
fn stirs(row: &mut Row, at: usize) -> usize {
    let heard = if at == 2 { row.answer(&Tell::Stored(true)) } else { 0 };
    heard + row.down(at).len() + row.up(at).len()
}

/// Whether what was asked is understood when the cells come as they are.
fn is_heard(row: &mut Row, at: usize, cells: &[Cell]) -> bool {
    cells.iter().for_each(|cell| row.lower(at, cell));
    stirs(row, at) >= if at == 2 { 1 } else { cells.len() }
}

/// Has the pivot answer a question: cells of this size on their way up, as they left it.
fn cells_up(row: &mut Row, key: PathKey, size: Size) -> Vec<Cell> {
    let now = row.now.mono;
    let ask = match size {
        Size::Small => Ask::Ping,
        Size::Full => Ask::Find { at: row.network.contacts[0].id, key: [3; 32] },
    };
    row.paths.ask(key, &ask, &mut row.client, now).unwrap();
    row.settle_down();
    if size == Size::Full {
        assert_eq!(row.answer(&Tell::Found(Some(vec![5; 2201].into()))), 1);
    }
    let cells = row.up(2);
    assert!(!cells.is_empty() && cells.iter().all(|cell| cell.size == size), "{} cells", cells.len());
    cells
}

fn flipped(cell: &Cell, bit: usize) -> Cell {
    let mut bent = cell.clone();
    bent.onion[bit / 8] ^= 1 << (bit % 8);
    bent
}

fn lives(row: &mut Row, key: PathKey) -> bool {
    let cells = asked(row, key, Size::Small, 1);
    row.paths.live(key).is_some() && is_heard(row, 2, &cells)
}

/// Every bit of both sizes, after the first hop and after the second, a few at each of a thousand paths.
#[test]
fn downwards_every_flipped_bit_dies_at_the_next_honest_hop() {
    let (mut row, keys) = row(PATHS);
    let (mut tried, mut padding) = (0, 0);
    for size in [Size::Small, Size::Full] {
        for (liar, bit) in (0..size.onion() * 8).flat_map(|bit| [(0, bit), (1, bit)]) {
            let (key, honest) = (keys[bit % PATHS], liar + 1);
            let cells = asked(&mut row, key, size, liar);
            let dropped = row.relays[honest].transit.dropped;
            if bit / 8 < size.layer(2 - liar) {
                tried += 1;
                row.lower(honest, &flipped(&cells[0], bit));
                assert_eq!(row.relays[honest].transit.dropped, dropped + 1, "bit {bit} was not noticed");
                assert_eq!(stirs(&mut row, honest), 0, "bit {bit} made the honest hop speak");
                // Nothing has changed at the honest hop: the cells themselves still open.
                assert!(is_heard(&mut row, honest, &cells), "bit {bit}: the path did not survive");
            } else if honest == 1 {
                // Padding, which no hop reads: what goes on is made afresh and does not show it.
                padding += 1;
                let bent = flipped(&cells[0], bit);
                row.lower(honest, &bent);
                let passed_on = row.down(honest);
                assert!(passed_on.len() == 1 && passed_on[0].onion[size.layer(1)..].iter().all(|byte| *byte == 0));
                let strings = |cell: &Cell| strings(core::iter::once(cell.onion.as_slice()));
                assert_eq!(shared(&strings(&bent), &strings(&passed_on[0])), None, "bit {bit} went on");
            }
        }
    }
    println!("{tried} bits flipped downwards on {PATHS} paths, and {padding} in padding");
    assert!(keys.iter().step_by(50).all(|key| lives(&mut row, *key)), "a path died of it");
}

#[test]
fn downwards_what_is_repeated_misdirected_or_cut_dies_at_the_next_honest_hop() {
    let (mut row, keys) = row(PATHS / 2);
    for (number, key) in keys.iter().enumerate() {
        let (size, liar) = ([Size::Small, Size::Full][number % 2], number / 2 % 2);
        let honest = liar + 1;
        let cells = asked(&mut row, *key, size, liar);
        let others = asked(&mut row, keys[(number + 1) % keys.len()], size, liar);
        assert!(is_heard(&mut row, honest, &cells));
        let dropped = row.relays[honest].transit.dropped;
        let mut dead = 0;
        let mut dies = |row: &mut Row, cell: Cell, what: &str| {
            row.lower(honest, &cell);
            dead += 1;
            assert_eq!(row.relays[honest].transit.dropped, dropped + dead, "{what} was not noticed");
            assert_eq!(stirs(row, honest), 0, "{what} made the honest hop speak");
        };
        dies(&mut row, cells[0].clone(), "a repeated cell");
        dies(&mut row, Cell { path: cells[0].path, ..others[0].clone() }, "another path's cell");
        if size == Size::Full {
            let mut small = Cell { size: Size::Small, ..others[0].clone() };
            small.onion.truncate(Size::Small.onion());
            dies(&mut row, small, "a cell cut to the other size");
        }
        let mut cut = others[0].clone();
        cut.onion[size.layer(2 - liar) - 16..].fill(0);
        dies(&mut row, cut, "a cell whose end was cut");
        // On the wire: no other length than two is opened at all.
        let mut short = row.datagram(honest, &others[0]);
        short.truncate(short.len() - 1 - number % 300);
        assert!(!row.take(honest, short), "a cut datagram was opened");
        assert!(is_heard(&mut row, honest, &others), "the other path's cells died too");
    }
    assert!(keys.iter().step_by(50).all(|key| lives(&mut row, *key)), "a path died of it");
}

/// A cell held back over the turn of an epoch opens for ten seconds more, and then never.
#[test]
fn downwards_a_cell_of_an_old_epoch_dies() {
    let (mut row, keys) = row(40);
    let held: Vec<[Vec<Cell>; 2]> =
        keys.iter().map(|key| [(); 2].map(|()| asked(&mut row, *key, Size::Small, 0))).collect();
    row.pass(Duration::from_secs(121));
    for (key, [late, _]) in keys.iter().zip(&held) {
        let new = asked(&mut row, *key, Size::Small, 0);
        assert!(is_heard(&mut row, 1, &new) && is_heard(&mut row, 1, late));
    }
    row.pass(Duration::from_secs(11));
    let dropped = row.relays[1].transit.dropped;
    for [late, too_late] in &held {
        row.lower(1, &too_late[0]);
        row.lower(1, &late[0]);
    }
    assert_eq!(row.relays[1].transit.dropped, dropped + 80);
    assert_eq!(stirs(&mut row, 1), 0, "an old epoch's cell went on");
    assert!(keys.iter().all(|key| lives(&mut row, *key)));
}

/// Whether a cell that relay `liar` sends up gets to the client and is dropped there, looking on the way like any other.
fn dies_at_the_client(row: &mut Row, liar: usize, cell: &Cell, what: &str) {
    let dropped = row.paths.dropped;
    let mut cell = cell.clone();
    for at in (0..liar).rev() {
        let before = row.relays[at].transit.dropped;
        row.raise(at, &cell);
        let went = row.up(at);
        assert_eq!(went.len(), 1, "{what}: a hop between could tell");
        assert_eq!((went[0].size, row.relays[at].transit.dropped), (cell.size, before), "{what}: a hop could tell");
        cell = went[0].clone();
    }
    assert_eq!(row.arrive(&cell), None, "{what}: the client was given it");
    assert_eq!(row.paths.dropped, dropped + 1, "{what}: the client believed it");
    assert!(row.sent().is_empty(), "{what}: the client lets it be known");
}

#[test]
fn upwards_every_flipped_bit_dies_at_the_client_and_nobody_between_can_tell() {
    let (mut row, keys) = row(PATHS);
    let mut tried = 0;
    for size in [Size::Small, Size::Full] {
        // What a hop sends up begins with its own layer; behind that is padding, which nobody reads.
        for liar in [1, 2] {
            for bit in 0..size.layer(3 - liar) * 8 {
                let mut cell = cells_up(&mut row, keys[bit % PATHS], size).remove(0);
                if liar == 1 {
                    row.raise(1, &cell);
                    cell = row.up(1).remove(0);
                }
                dies_at_the_client(&mut row, liar, &flipped(&cell, bit), "a flipped bit");
                tried += 1;
            }
        }
    }
    println!("{tried} bits flipped upwards on {PATHS} paths");
    for key in keys.iter().step_by(50) {
        let cells = cells_up(&mut row, *key, Size::Small);
        assert_eq!(cells.len(), 1);
        let (dropped, heard) = (row.paths.dropped, row.paths.live(*key).unwrap().cells.1);
        row.raise(1, &cells[0]);
        row.settle_up();
        let live = row.paths.live(*key).unwrap();
        assert_eq!((row.paths.dropped, live.cells.1), (dropped, heard + 1), "a path died of it");
    }
}

#[test]
fn upwards_what_is_repeated_misdirected_or_cut_dies_at_the_client() {
    let (mut row, keys) = row(PATHS / 2);
    for (number, key) in keys.iter().enumerate() {
        let size = [Size::Small, Size::Full][number % 2];
        let other = keys[(number + 1) % keys.len()];
        let cell = cells_up(&mut row, *key, size).remove(0);
        row.up(2);
        let elsewhere = cells_up(&mut row, other, size).remove(0);
        row.up(2);
        row.raise(1, &cell);
        row.settle_up();
        dies_at_the_client(&mut row, 2, &cell, "a repeated cell");
        dies_at_the_client(&mut row, 2, &Cell { path: cell.path, ..elsewhere.clone() }, "another path's cell");
        let mut cut = elsewhere.clone();
        cut.onion[size.layer(1) - 16..].fill(0);
        dies_at_the_client(&mut row, 2, &cut, "a cell whose end was cut");
        if size == Size::Full {
            let mut small = Cell { size: Size::Small, ..elsewhere.clone() };
            small.onion.truncate(Size::Small.onion());
            dies_at_the_client(&mut row, 2, &small, "a cell cut to the other size");
        }
    }
}

/// A build that was seen on its way is sent again, to each of its hops: no second hop, and no word.
#[test]
fn a_build_is_admitted_once() {
    let mut row = Row::new(3, [2; 32]);
    for _ in 0..100 {
        row.path(Purpose::General).expect("a path");
        let builds = row.builds.clone();
        for (at, build) in builds.into_iter().enumerate() {
            let hops = row.relays[at].transit.len();
            assert!(row.knock(at, build).is_none(), "a repeated build was answered");
            assert_eq!(row.relays[at].transit.len(), hops, "a repeated build made a hop");
        }
    }
}
