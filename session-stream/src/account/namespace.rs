//! Namespaces: an account's mailbox has 65,536 boxes, and a box's number says who may put in and who may look.
//! Neighbours: `auth` (verifies what a rule asks for), `rpc` (asks for the rules).

use crate::value::Value;

/// A box of the mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Namespace(pub i16);

/// The boxes a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One.
    One(Namespace),
    /// `"all"`.
    All,
}

impl Namespace {
    /// Direct messages.
    pub const DEFAULT: Namespace = Namespace(0);
    /// Groups of the first kind, whose members share no key that the node could ask for.
    pub const LEGACY_GROUP: Namespace = Namespace(-10);

    /// Everybody may put in: the multiples of ten.
    pub fn is_public_inbox(self) -> bool {
        self.0 % 10 == 0
    }

    /// Everybody may look, and it holds one message only: -1, -21, -41, …
    pub fn is_public_outbox(self) -> bool {
        self.0 < 0 && self.0 % 20 == -1
    }

    /// Looking needs no signature.
    pub fn reads_freely(self) -> bool {
        self == Self::LEGACY_GROUP || self.is_public_outbox()
    }

    /// Whose token was revoked may still look, to learn that it was: -11, -111, …
    pub fn outlives_revocation(self) -> bool {
        self.0 < 0 && self.0 % 100 == -11
    }

    /// As it stands in what is signed and hashed: nothing for the default.
    pub fn signed(self) -> String {
        if self == Self::DEFAULT { String::new() } else { self.0.to_string() }
    }
}

impl Scope {
    /// As it stands in what is signed.
    pub fn signed(self) -> String {
        match self {
            Scope::One(namespace) => namespace.signed(),
            Scope::All => "all".to_owned(),
        }
    }

    /// As it stands among a call's parameters.
    pub fn carried(self) -> Value {
        match self {
            Scope::One(namespace) => namespace.0.into(),
            Scope::All => "all".into(),
        }
    }
}

impl Default for Scope {
    fn default() -> Scope {
        Scope::One(Namespace::DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_rules() {
        let rules = |n| {
            let n = Namespace(n);
            (n.is_public_inbox(), n.is_public_outbox(), n.reads_freely(), n.outlives_revocation())
        };
        for n in [0, 10, -30, 32_760] {
            assert_eq!(rules(n), (true, false, false, false), "{n}");
        }
        assert_eq!(rules(-10), (true, false, true, false));
        for n in [-1, -21, -32_761] {
            assert_eq!(rules(n), (false, true, true, false), "{n}");
        }
        for n in [-11, -111, -32_711] {
            assert_eq!(rules(n), (false, false, false, true), "{n}");
        }
        for n in [1, 2, 11, 21, 42, 111, -2, -12, -31, i16::MAX, i16::MIN] {
            assert_eq!(rules(n), (false, false, false, false), "{n}");
        }
    }

    #[test]
    fn the_default_is_signed_as_nothing() {
        assert_eq!(Namespace(0).signed(), "");
        assert_eq!(Namespace(-11).signed(), "-11");
        assert_eq!(Scope::All.signed(), "all");
        assert_eq!(Scope::default().signed(), "");
    }
}
