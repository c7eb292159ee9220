//! The options of `[router]`: who this node is and where its files lie.

use super::{Opt, Section};

pub(super) const ROUTER: Section = Section::new(
    "router",
    "The node itself: its network, its files, and where a relay is reached.",
    &[
        Opt::new(
            "netid",
            "The network to join, by name (1 to 8 characters). Nodes of other networks are neither seen nor answered.",
        )
        .preset("lokinet"),
        Opt::new(
            "data-dir",
            "The directory that keeps what the node must remember. Every other path in this file, unless it begins with /, \
             is looked for in it, and the *.ini files in its conf.d are read after this one and override it. The default \
             is /var/lib/lokinet for root and for a user whose home that is, ~/.lokinet for others.",
        )
        .preset("/var/lib/lokinet"),
        Opt::new(
            "public-ip",
            "The address under which others reach this relay, when it is not the one it listens on (behind NAT). \
             Without it, the public addresses in [bind] inbound are told to others.",
        )
        .relay(),
        Opt::new("public-port", "The UDP port that goes with public-ip.").relay().preset("1090"),
        Opt::new(
            "ident-privkey",
            "The file with the relay's identity, whose public half stands in the registry. It is made when it is not there.",
        )
        .relay()
        .preset("identity.key"),
        Opt::new(
            "worker-threads",
            "How many threads move a relay's cells, 7 at most; 0 for one less than there are processors. The rest of the \
             relay's work has one more.",
        )
        .relay()
        .preset("0"),
        Opt::new(
            "block-bogons",
            "Whether private and reserved addresses are refused as relays' addresses. Only a private test network turns \
             this off.",
        )
        .preset("true")
        .hidden(),
        Opt::idle("job-queue-size", "every queue here has a fixed bound"),
        Opt::idle("min-connections", "a client keeps links to its guards, a relay opens links as paths need them"),
        Opt::idle("max-connections", "the limits on links are fixed"),
        Opt::idle("nickname", "relays publish no nickname"),
        Opt::idle("contact-file", "a relay's own contact is always self.signed in the data directory")
            .fine(&["self.signed"]),
        Opt::idle("encryption-privkey", "onion keys change every day and lie in onion.keys in the data directory")
            .fine(&["encryption.key"]),
        Opt::idle("transport-privkey", "links use the key of ident-privkey").fine(&["transport.key"]),
        Opt::idle("max-routers", "it was deprecated long ago"),
        Opt::idle("min-routers", "it was deprecated long ago"),
        Opt::idle("threads", "it was deprecated long ago"),
        Opt::idle("net-threads", "it was deprecated long ago"),
        Opt::refused("public-address", "write public-ip and public-port in its place"),
    ],
);
