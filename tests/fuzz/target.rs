//! Every fuzz target: the program's own name says which. Cargo builds this file once for each.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lokinet_tests::fuzz::run(env!("CARGO_BIN_NAME"), bytes));
