//! The table of all options: one place says which exist, what they are by default, whom they concern and what they do.
//! `given` holds a file against it, the builders take their defaults from it, `generate` prints it. Options of the
//! ancestor that this version does not have are listed too, each with what happens to who sets it.

mod network;
mod router;
mod services;

use super::Role;

/// The sections in the order in which a generated file shows them.
pub const SECTIONS: &[Section] = &[
    router::ROUTER,
    network::NETWORK,
    network::PATHS,
    services::CONNECT,
    services::DNS,
    services::BIND,
    services::API,
    services::LOKID,
    services::BOOTSTRAP,
    services::REGISTRY,
    services::LOGGING,
    services::SYSTEM,
    services::NETDB,
    services::METRICS,
];

/// Values by which a true boolean may be written.
pub const TRUE: &[&str] = &["true", "on", "yes", "1"];
/// Values by which a false boolean may be written.
pub const FALSE: &[&str] = &["false", "off", "no", "0"];

/// A section.
pub struct Section {
    /// Its name, without brackets.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// What may stand in it.
    pub options: &'static [Opt],
    /// Whether names that are not in the table may stand in it too (`[bind]`, `[connect]`).
    pub open: bool,
}

/// An option.
pub struct Opt {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// What holds when it is not given.
    pub preset: Preset,
    /// Whom it concerns; `None` is both.
    pub only: Option<Role>,
    /// Whether it may be given more than once.
    pub repeats: bool,
    /// Whether a generated file leaves it out.
    pub hidden: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// A default, as text.
#[derive(Clone, Copy)]
pub enum Preset {
    /// There is none.
    Nothing,
    /// The same for clients and relays.
    Same(&'static str),
    /// One for clients, one for relays.
    Each(&'static str, &'static str),
}

/// What becomes of an option that is given. `fine` are the values that ask for what happens anyway, and pass in silence.
#[derive(Clone, Copy)]
pub enum Fate {
    /// It does what it says.
    Used,
    /// It does nothing, and a warning says why.
    Idle(&'static str, &'static [&'static str]),
    /// It is refused, since whoever relies on it would be harmed by silence.
    Refused(&'static str, &'static [&'static str]),
}

impl Section {
    const fn new(name: &'static str, about: &'static str, options: &'static [Opt]) -> Section {
        Section { name, about, options, open: false }
    }

    const fn open(mut self) -> Section {
        self.open = true;
        self
    }

    /// The option of this name.
    pub fn option(&self, name: &str) -> Option<&Opt> {
        self.options.iter().find(|option| option.name == name)
    }
}

impl Opt {
    const fn new(name: &'static str, about: &'static str) -> Opt {
        let preset = Preset::Nothing;
        Opt { name, about, preset, only: None, repeats: false, hidden: false, fate: Fate::Used }
    }

    /// An option without effect; its default and comment are nobody's business.
    const fn idle(name: &'static str, why: &'static str) -> Opt {
        Opt { hidden: true, repeats: true, fate: Fate::Idle(why, &[]), ..Opt::new(name, "") }
    }

    /// An option whose absence must not pass in silence.
    const fn refused(name: &'static str, why: &'static str) -> Opt {
        Opt { hidden: true, repeats: true, fate: Fate::Refused(why, &[]), ..Opt::new(name, "") }
    }

    const fn fine(mut self, values: &'static [&'static str]) -> Opt {
        self.fate = match self.fate {
            Fate::Used => Fate::Used,
            Fate::Idle(why, _) => Fate::Idle(why, values),
            Fate::Refused(why, _) => Fate::Refused(why, values),
        };
        self
    }

    const fn preset(mut self, text: &'static str) -> Opt {
        self.preset = Preset::Same(text);
        self
    }

    const fn presets(mut self, client: &'static str, relay: &'static str) -> Opt {
        self.preset = Preset::Each(client, relay);
        self
    }

    const fn client(mut self) -> Opt {
        self.only = Some(Role::Client);
        self
    }

    const fn relay(mut self) -> Opt {
        self.only = Some(Role::Relay);
        self
    }

    const fn repeats(mut self) -> Opt {
        self.repeats = true;
        self
    }

    const fn hidden(mut self) -> Opt {
        self.hidden = true;
        self
    }

    /// Its default in this role, as text.
    pub fn default(&self, role: Role) -> Option<&'static str> {
        match (self.preset, role) {
            (Preset::Nothing, _) => None,
            (Preset::Same(text), _) | (Preset::Each(text, _), Role::Client) | (Preset::Each(_, text), Role::Relay) => {
                Some(text)
            }
        }
    }

    /// Whether it concerns this role.
    pub fn concerns(&self, role: Role) -> bool {
        self.only.is_none_or(|only| only == role)
    }
}

/// The section of this name.
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// An option that must be in the table, since our own code asks for it.
pub fn expect(section_name: &str, name: &str) -> &'static Opt {
    let found = section(section_name).and_then(|section| section.option(name));
    found.expect("config asks only for options in its own table, as its tests see to")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_what_people_see_is_explained() {
        for section in SECTIONS {
            let mut names: Vec<&str> = section.options.iter().map(|option| option.name).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "[{}]", section.name);
            for option in section.options.iter().filter(|option| !option.hidden) {
                assert!(option.about.len() > 20, "[{}] {}", section.name, option.name);
                assert!(matches!(option.fate, Fate::Used), "[{}] {}", section.name, option.name);
            }
        }
    }

    /// Shared facts §1.2: each is accepted, refused with a reason, or ignored with one, but never unknown.
    #[test]
    fn every_option_of_the_ancestor_is_known() {
        let ancestor = "router: job-queue-size netid min-connections max-connections nickname data-dir public-ip \
            public-address public-port worker-threads block-bogons contact-file encryption-privkey ident-privkey \
            transport-privkey max-routers min-routers threads net-threads; network: type save-profiles profiling \
            strict-connect keyfile auth auth-lmq auth-lmq-method auth-whitelist auth-file auth-file-type auth-static \
            reachable hops paths exit owned-range traffic-whitelist exit-node exit-auth auto-routing blackhole-routes \
            ifname ifaddr ip6-range mapaddr blacklist-snode srv path-alignment-timeout persist-addrmap-file profiles \
            enabled; paths: unique-range-size exclude-country; dns: upstream l3-intercept query-bind bind add-hosts \
            no-resolvconf; bind: public-ip public-port inbound outbound; api: enabled bind authkey; lokid: enabled rpc \
            jsonrpc username password service-node-seed; bootstrap: seed-node add-node; logging: type level file; \
            system: user group pidfile; netdb: dir; metrics: json-metrics-path";
        for line in ancestor.split(';') {
            let (name, options) = line.trim().split_once(':').unwrap();
            for option in options.split_whitespace() {
                assert!(section(name).unwrap().option(option).is_some(), "[{name}] {option}");
            }
        }
    }
}
