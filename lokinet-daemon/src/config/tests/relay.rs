//! Where relays listen and what they tell others: the ancestor's matrix (shared facts §7,
//! config/test_llarp_config_values.cpp), as far as it goes without guessing at interfaces: an address that counts must
//! be written down here.

use super::*;

fn addresses(list: &[SocketAddr]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Where it listens and what it publishes.
fn relay(text: &str) -> (Vec<String>, Vec<String>) {
    let (settings, _) = read(Role::Relay, text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    (addresses(&settings.bind.inbound), addresses(&settings.router.public))
}

fn refused(text: &str) -> String {
    let errors = read(Role::Relay, text).map(|_| ()).expect_err(text);
    assert_eq!(errors.len(), 1, "{text}: {errors:?}");
    errors[0].clone()
}

fn listens(list: &[&str], public: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    (owned(list), owned(public))
}

const NO_ADDRESS: &str = "t.ini: a relay needs an address that others can reach, and none is given; set [bind] inbound=IP:port \
    with a public address of this host, or [router] public-ip behind NAT";

#[test]
fn one_public_interface() {
    let same = listens(&["1.1.1.1:443"], &["1.1.1.1:443"]);
    assert_eq!(relay("[bind]\nmock0=443"), same);
    assert_eq!(relay("[bind]\ninbound=1.1.1.1:443"), same);
    assert_eq!(relay("[bind]\n1.1.1.1=443"), same);
    assert_eq!(relay("[bind]\ninbound=1.1.1.1"), listens(&["1.1.1.1:1090"], &["1.1.1.1:1090"]));
    assert_eq!(
        refused("[router]\npublic-ip=8.8.8.8\n[bind]\ninbound=1.1.1.1:443"),
        "t.ini:4: [bind] inbound: 1.1.1.1 is public, but public-ip tells others 8.8.8.8; let the two agree, or remove public-ip"
    );
    assert_eq!(
        refused("[bind]\nmock1=443"),
        "t.ini:2: [bind] mock1: there is no interface of this name that has an address; write inbound=IP:443 in its place"
    );
    let loopback = "[bind] inbound: 127.0.0.1:443 is a loopback address, where nobody else can reach it; name an address of a network \
         interface";
    assert_eq!(refused("[bind]\nlo=443"), format!("t.ini:2: {loopback}"));
    assert_eq!(refused("[bind]\ninbound=127.0.0.1:443"), format!("t.ini:2: {loopback}"));
    assert_eq!(refused(""), NO_ADDRESS);
}

#[test]
fn behind_nat() {
    for inbound in ["inbound=10.1.1.1:443", "nat0=443"] {
        assert_eq!(refused(&format!("[bind]\n{inbound}")), NO_ADDRESS);
        let text = format!("[router]\npublic-ip=8.8.8.8\npublic-port=4443\n[bind]\n{inbound}");
        assert_eq!(relay(&text), listens(&["10.1.1.1:443"], &["8.8.8.8:4443"]));
    }
    assert_eq!(
        refused("[router]\npublic-ip=10.1.1.1"),
        "t.ini:2: [router] public-ip: 10.1.1.1 is a private or reserved address; write the address that the internet sees; a private \
         test network sets [router] block-bogons=false"
    );
}

#[test]
fn every_address() {
    assert_eq!(refused("[bind]\ninbound=:443"), NO_ADDRESS);
    assert_eq!(refused("[bind]\ninbound=0.0.0.0:443"), NO_ADDRESS);
    let both = "[router]\npublic-ip=1.1.1.1\npublic-port=443\n[bind]\ninbound=:443";
    assert_eq!(relay(both), listens(&["0.0.0.0:443"], &["1.1.1.1:443"]));
    assert_eq!(relay("[bind]\npublic-ip=8.8.8.8"), listens(&["0.0.0.0:1090"], &["8.8.8.8:1090"]));
    assert_eq!(relay("[bind]\npublic-ip=2620:fe::9\npublic-port=9"), listens(&["[::]:9"], &["[2620:fe::9]:9"]));
}

#[test]
fn both_families_are_published_and_one_of_each() {
    let two = "[bind]\ninbound=8.8.8.8\ninbound=[2620:fe::9]:443";
    assert_eq!(relay(two).1, ["8.8.8.8:1090", "[2620:fe::9]:443"]);
    let (settings, warnings) = read(Role::Relay, "[bind]\ninbound=8.8.8.8\ninbound=1.1.1.1").unwrap();
    assert_eq!(addresses(&settings.router.public), ["8.8.8.8:1090"]);
    assert_eq!(
        warnings,
        [
            "t.ini:3: [bind] inbound: others are told of 8.8.8.8:1090 and not of 1.1.1.1:1090; one IPv4 and one IPv6 address are \
          published; the first of each counts"
        ]
    );
}

#[test]
fn a_private_network_has_private_relays() {
    let text = "[router]\nnetid=devnet\nblock-bogons=false\npublic-ip=10.2.0.1\npublic-port=1090\n\
                [bind]\ninbound=10.2.0.1:1090\ninbound=[3fff:2::1]:1090";
    let both = ["10.2.0.1:1090", "[3fff:2::1]:1090"];
    assert_eq!(relay(text), listens(&both, &both));
    let loopback = "[router]\nnetid=devnet\nblock-bogons=false\n[bind]\ninbound=127.0.0.1:443";
    assert_eq!(relay(loopback), listens(&["127.0.0.1:443"], &["127.0.0.1:443"]));
}

#[test]
fn ports_that_nobody_can_know_and_words_that_disagree() {
    assert_eq!(
        refused("[bind]\ninbound=8.8.8.8:0"),
        "t.ini:2: [bind] inbound: port 0 is a different one at every start; name a port that others can know"
    );
    assert_eq!(
        refused("[bind]\nmock0=0"),
        "t.ini:2: [bind] inbound: port 0 is a different one at every start; name a port that others can know"
    );
    assert_eq!(relay("[bind]\ninbound=8.8.8.8:443\npublic-port=4443"), listens(&["8.8.8.8:443"], &["8.8.8.8:4443"]));
    assert_eq!(
        refused("[bind]\ninbound=8.8.8.8\npublic-port=0"),
        "t.ini:3: [bind] public-port: nobody can reach port 0; write the port that others use, like 1090"
    );
    assert_eq!(
        refused("[router]\npublic-ip=5.6.7.8:1234"),
        "t.ini:2: [router] public-ip: 5.6.7.8:1234 has a port, and none is allowed here; write 5.6.7.8 alone"
    );
    assert_eq!(
        refused("[router]\npublic-ip=8.8.8.8\n[bind]\npublic-ip=1.1.1.1"),
        "t.ini:4: [bind] public-ip: [router] public-ip at t.ini:2 says otherwise; remove one of the two lines"
    );
}

#[test]
fn what_others_are_told_is_listened_for() {
    assert_eq!(
        refused("[router]\npublic-ip=8.8.8.8\n[bind]\ninbound=[2620:fe::9]:443"),
        "t.ini:2: [router] public-ip: nothing here listens for 8.8.8.8, since no [bind] inbound is IPv4; add an inbound line \
         with an IPv4 address"
    );
    let dual = "[router]\npublic-ip=8.8.8.8\npublic-port=443\n[bind]\ninbound=[::]:443";
    assert_eq!(relay(dual), listens(&["[::]:443"], &["8.8.8.8:443"]));
}

#[test]
fn oxend_is_not_asked() {
    assert_eq!(
        refused("[bind]\ninbound=8.8.8.8\n[lokid]\nrpc=ipc:///var/lib/oxen/oxend.sock"),
        "t.ini:4: [lokid] rpc: not supported by this version: oxend is not asked who is a relay; the registry \
         says so, see file and authority in [registry]; remove the line"
    );
}
