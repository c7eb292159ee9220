//! The options of the smaller sections: DNS, sockets, control, bootstrap, registry, log, and the sections that the
//! ancestor had given up already.

use super::{FALSE, Opt, Section};

const DEPRECATED: &str = "it was deprecated long ago";
const NO_OXEND: &str = "oxend is not asked who is a relay; the registry says so, see file and authority in [registry]";

pub(super) const CONNECT: Section = Section::new("connect", "Bootstrap files, in the old way.", &[]).open();

pub(super) const DNS: Section = Section::new(
    "dns",
    "The resolver for .loki and .snode names.",
    &[
        Opt::new("bind", "Where programs may ask, IP:port. Without a port it is 53; port 0 takes any that is free.")
            .repeats()
            .preset("127.3.2.1:53"),
        Opt::new(
            "upstream",
            "Who is asked for all other names, IP:port; without a port it is 53. Left empty, other names are refused.",
        )
        .repeats()
        .preset("9.9.9.10:53"),
        Opt::new("query-bind", "The local address, IP:port, from which upstream resolvers are asked.").hidden(),
        Opt::new(
            "no-resolvconf",
            "When true, the host's own resolver is not told of this one: .loki names work only for programs that ask here.",
        )
        .client()
        .preset("false"),
        Opt::refused("l3-intercept", "DNS is answered only where [dns] bind says").fine(FALSE),
        Opt::refused("add-hosts", "no names are filtered yet, and what should be blocked would be answered").client(),
    ],
);

pub(super) const BIND: Section = Section::new(
    "bind",
    "The UDP sockets towards other nodes.",
    &[
        Opt::new(
            "inbound",
            "Where a relay listens: IP:port, IP, or :port for every IPv4 address. The default port is 1090. Without this \
             option it listens on public-port at every address of public-ip's kind.",
        )
        .relay()
        .repeats(),
        Opt::new(
            "outbound",
            "The local address for links to others, in the same forms. Without it the system chooses.",
        )
        .repeats(),
        Opt::new("public-ip", "The same as public-ip in [router].").relay().hidden(),
        Opt::new("public-port", "The same as public-port in [router].").relay().hidden(),
    ],
)
.open();

pub(super) const API: Section = Section::new(
    "api",
    "The control socket, through which lokinet status and other programs speak with the daemon.",
    &[
        Opt::new("enabled", "Whether there is one. The default is true for clients and false for relays.")
            .presets("true", "false"),
        Opt::new("socket", "Where it is. Who may use it is a matter of the file's owner, group and mode.")
            .preset("/run/lokinet/control.sock"),
        Opt::idle("bind", "there is no TCP or OxenMQ listener; the control socket is where [api] socket says"),
        Opt::idle("authkey", DEPRECATED),
    ],
);

pub(super) const LOKID: Section = Section::new(
    "lokid",
    "The blockchain's daemon.",
    &[
        Opt::refused("enabled", NO_OXEND).relay().fine(FALSE),
        Opt::refused("rpc", NO_OXEND).relay(),
        Opt::refused("jsonrpc", NO_OXEND).relay(),
        Opt::idle("username", DEPRECATED),
        Opt::idle("password", DEPRECATED),
        Opt::idle("service-node-seed", DEPRECATED),
    ],
);

pub(super) const BOOTSTRAP: Section = Section::new(
    "bootstrap",
    "The first relays to ask for others.",
    &[
        Opt::new(
            "add-node",
            "A file with signed contacts of relays. Without this option bootstrap.signed in the data directory is read, \
             if it is there. The addresses in the registry serve too.",
        )
        .repeats(),
        Opt::idle("seed-node", "any relay can be a network's first; the registry says who is one").fine(FALSE),
    ],
);

pub(super) const REGISTRY: Section = Section::new(
    "registry",
    "Who is a relay at all: a list that the network's authorities have signed. Nobody else's word counts.",
    &[
        Opt::new("file", "The file with the signed list.").preset("registry.signed"),
        Opt::new("authority", "The public key of an authority: Ed25519, 64 hexadecimal digits.").repeats(),
        Opt::new("threshold", "How many of the authorities must have signed the list.").preset("1"),
    ],
);

pub(super) const LOGGING: Section = Section::new(
    "logging",
    "What the daemon says of itself. Names, addresses and keys of users are never among it above debug.",
    &[
        Opt::new("type", "print writes to standard output, file to the file named below.").preset("print"),
        Opt::new(
            "level",
            "How much: trace, debug, info, warn, error or none. The default is info for clients and warn for relays.",
        )
        .presets("info", "warn"),
        Opt::new("file", "Where type=file writes."),
    ],
);

pub(super) const SYSTEM: Section = Section::new(
    "system",
    "",
    &[Opt::idle("user", DEPRECATED), Opt::idle("group", DEPRECATED), Opt::idle("pidfile", DEPRECATED)],
);

pub(super) const NETDB: Section = Section::new("netdb", "", &[Opt::idle("dir", DEPRECATED)]);

pub(super) const METRICS: Section = Section::new("metrics", "", &[Opt::idle("json-metrics-path", DEPRECATED)]);
