//! What the eyes see: chapter 90's promises against relays and wires, tried on what every relay and every wire was
//! shown. `recorded` watches a town of real nodes through glass relays, `tampered` does to cells what dishonest hops
//! could, `counters` looks for what colluding hops have in common, `keys` opens records with stolen secrets, `pivot`
//! asks what the last hop and the keepers learn, `choice` judges how hops are drawn.

#![allow(clippy::unwrap_used)]

mod choice;
mod counters;
mod keys;
mod pivot;
mod recorded;
mod tampered;
