//! Floor 4: IP packets in and out, leased addresses, DNS answers.

pub mod dns;
pub mod lease;
pub mod question;
