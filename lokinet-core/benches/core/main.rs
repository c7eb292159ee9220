//! What the core costs on one processor, operation by operation: `cargo bench -p lokinet-core` (`-- --quick` for a first
//! look, `-- 'relay'` for a part). Everything runs through the public machines, in memory, without sockets or clocks.
//! Neighbours: `cells` is the data plane, `records` are builds and signed things, `chain` is relays linked in a row,
//! `counted` is the data plane again for `tests/bench/instructions`, `scale` on several threads.

#![allow(clippy::unwrap_used)] // a bench that cannot set itself up has nothing to say

mod cells;
mod chain;
mod counted;
mod records;
mod scale;

use criterion::Criterion;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "count") {
        return counted::run(&words[1..]).unwrap_or_else(|| panic!("count STAGES CELLS, not {words:?}"));
    }
    if words.first().is_some_and(|word| word == "scale") {
        return scale::run(&words[1..]).unwrap_or_else(|| panic!("scale WORKERS CELLS, not {words:?}"));
    }
    let mut criterion = Criterion::default().configure_from_args();
    cells::bench(&mut criterion);
    records::bench(&mut criterion);
    criterion.final_summary();
}
