//! Floor 4: IP packets in and out, leased addresses, DNS answers.
pub mod question;
