//! The options of `[network]`: what a client is and does, and of `[paths]`.

use super::{FALSE, Opt, Section, TRUE};

const NO_EXITS: &str = "there are no exits yet";
const NO_AUTH: &str = "every caller is let in, and a service that counts on being closed would stand open";

pub(super) const NETWORK: Section = Section::new(
    "network",
    "This machine in the network: its .loki address, its paths, its interface.",
    &[
        Opt::new("type", "tun for an interface with addresses of its own, null for none.").preset("tun").hidden(),
        Opt::new(
            "keyfile",
            "The file that keeps this machine's .loki address. It is made when it is not there; keep a copy, for the \
             address is lost with it. Without this option the address is a new one at every start.",
        )
        .client(),
        Opt::new(
            "reachable",
            "Whether others can reach this machine by its .loki address. When false nothing is published; reaching \
             others works all the same.",
        )
        .client()
        .preset("true"),
        Opt::new(
            "hops",
            "How many relays a path has, 1 to 4. With a .loki site at the other end, whose paths have as many, traffic \
             crosses twice that number. More than 4 would buy no anonymity and cost everyone.",
        )
        .preset("3"),
        Opt::new("paths", "How many paths are kept ready, 2 to 8.").preset("4"),
        Opt::new("path-lifetime", "How long a path is used before another takes its place, from 2m to 60m.").preset("20m"),
        Opt::new(
            "strict-connect",
            "A relay (.snode) that may be the first of a path. When this is given, at least twice, no other relay sees \
             this machine's IP address.",
        )
        .client()
        .repeats(),
        Opt::new("ifname", "The name of the interface. Without it the first free lokitunN is taken."),
        Opt::new(
            "ifaddr",
            "The interface's own IPv4 address and the private range around it, such as 172.16.0.1/16. Without it a range \
             is taken that nothing here uses.",
        ),
        Opt::new(
            "ip6-range",
            "The IPv6 address over which every address of the range has an IPv6 twin. Left empty, .loki has no IPv6 here, and \
             a program that insists on IPv6 may go past the tunnel and show who you are.",
        )
        .client()
        .preset("fd00::"),
        Opt::new(
            "offload",
            "Whether the kernel hands packets over by the dozen, as to a network card. When false each one comes alone and \
             whole, which costs several times the work.",
        )
        .client()
        .preset("true"),
        Opt::new("mapaddr", "A fixed local address for a .loki address: <address>.loki:IP, the IP within ifaddr.")
            .client()
            .repeats(),
        Opt::new(
            "srv",
            "A service this machine offers, for SRV questions about its address: _service._proto priority weight port \
             [target]. Without a target it is this machine itself.",
        )
        .client()
        .repeats(),
        Opt::idle("save-profiles", "what is known of relays that failed is always kept").fine(TRUE),
        Opt::idle("profiling", "relays that failed are always remembered").fine(TRUE),
        Opt::idle("path-alignment-timeout", "a name is answered as soon as it is known whether it can be reached"),
        Opt::idle("persist-addrmap-file", "local addresses are given anew at every start; fix them with mapaddr"),
        Opt::idle("profiles", "it was deprecated long ago"),
        Opt::idle("enabled", "it was deprecated long ago"),
        Opt::idle("auto-routing", NO_EXITS).fine(TRUE),
        Opt::idle("blackhole-routes", NO_EXITS).fine(TRUE),
        Opt::refused("auth", NO_AUTH).client().fine(&["none"]),
        Opt::refused("auth-lmq", NO_AUTH).client(),
        Opt::refused("auth-lmq-method", NO_AUTH).client(),
        Opt::refused("auth-whitelist", NO_AUTH).client(),
        Opt::refused("auth-file", NO_AUTH).client(),
        Opt::refused("auth-file-type", NO_AUTH).client(),
        Opt::refused("auth-static", NO_AUTH).client(),
        Opt::refused("exit", NO_EXITS).client().fine(FALSE),
        Opt::refused("exit-node", "there are no exits yet, and traffic that counts on one would go out unprotected")
            .client(),
        Opt::refused("exit-auth", NO_EXITS).client(),
        Opt::refused("owned-range", "no ranges are announced yet"),
        Opt::refused("traffic-whitelist", "no traffic is filtered yet, and what should be closed would stand open"),
        Opt::refused("blacklist-snode", "single relays cannot be kept out of paths yet").client(),
    ],
);

pub(super) const PATHS: Section = Section::new(
    "paths",
    "How relays are chosen.",
    &[
        Opt::idle("unique-range-size", "two relays of a path never share an IPv4 /16 or an IPv6 /32")
            .client()
            .fine(&["16"]),
        Opt::refused("exclude-country", "nothing here knows where relays are").client(),
    ],
);
