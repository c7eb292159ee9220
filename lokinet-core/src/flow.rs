//! Floor 4: IP packets in and out, leased addresses, DNS answers, and ICMP errors of our own.

pub mod dns;
pub mod icmp;
pub mod lease;
pub mod question;
