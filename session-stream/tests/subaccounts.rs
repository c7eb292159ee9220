//! Tokens and their revocation, through the machine. Neighbours: `town` (the swarm).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::time::Duration;

use blake2::digest::{Digest, KeyInit, Mac};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, Scalar};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value as Json, json};
use session_stream::account::{Access, Account, Token};
use session_stream::value::{Form, Value};
use town::{Owner, Town, base64, key};

const FORBIDDEN: u16 = 401;

/// Somebody an owner let in.
struct Member {
    key: SigningKey,
    token: Token,
    note: [u8; 64],
}

impl Member {
    fn of(owner: &Owner, number: u8, access: Access) -> Member {
        let key = key(b'm', number);
        let token = Token::new(owner.account.prefix(), access, false, key.verifying_key().to_bytes());
        Member { note: owner.key.sign(&token.0).to_bytes(), key, token }
    }

    /// The owner's request, signed by the member.
    fn signs(&self, owner: &Owner, parts: &[&str], more: Json) -> Json {
        let mut params = owner.signed(&[], more);
        params["signature"] = base64(&self.key.sign(parts.concat().as_bytes()).to_bytes()).into();
        params["subaccount"] = base64(&self.token.0).into();
        params["subaccount_sig"] = base64(&self.note).into();
        params
    }

    fn stores(&self, owner: &Owner, town: &mut Town, ns: i16, data: &[u8]) -> u16 {
        let now = town.wall();
        let more = json!({"namespace": ns, "data": base64(data), "timestamp": now, "ttl": 86_400_000});
        let params = self.signs(owner, &["store", &ns.to_string(), &now.to_string()], more);
        town.json(0, "store", &params).0
    }

    fn looks(&self, owner: &Owner, town: &mut Town, number: usize, ns: i16) -> u16 {
        let now = town.wall();
        let more = json!({"namespace": ns, "timestamp": now});
        let params = self.signs(owner, &["retrieve", &ns.to_string(), &now.to_string()], more);
        town.json(number, "retrieve", &params).0
    }
}

fn revoke(owner: &Owner, town: &mut Town, tokens: &[Token]) -> Json {
    owners(owner, town, "revoke_subaccount", "revoke", tokens)
}

fn unrevoke(owner: &Owner, town: &mut Town, tokens: &[Token]) -> Json {
    owners(owner, town, "unrevoke_subaccount", "unrevoke", tokens)
}

fn owners(owner: &Owner, town: &mut Town, method: &str, name: &str, tokens: &[Token]) -> Json {
    let now = town.wall();
    let mut message = format!("{method}{now}").into_bytes();
    tokens.iter().for_each(|token| message.extend(token.0));
    let mut params = owner.signed(&[], json!({"timestamp": now}));
    params["signature"] = base64(&owner.key.sign(&message).to_bytes()).into();
    params[name] = tokens.iter().map(|token| base64(&token.0)).collect();
    let (status, body) = town.json(0, method, &params);
    assert_eq!(status, 200, "{body}");
    for house in &town.houses {
        let mut signed = owner.account.hex().into_bytes();
        signed.extend(now.to_string().bytes());
        tokens.iter().for_each(|token| signed.extend(token.0));
        let receipt = base64(&house.key.sign(&signed).to_bytes());
        assert_eq!(body["swarm"][house.hex()]["signature"], receipt);
    }
    body
}

fn revoked(owner: &Owner, town: &mut Town, number: usize) -> Json {
    let now = town.wall();
    let params = owner.signed(&["revoked_subaccounts", &now.to_string()], json!({"timestamp": now}));
    let (status, body) = town.json(number, "revoked_subaccounts", &params);
    assert_eq!(status, 200, "{body}");
    body["revoked_subaccounts"].clone()
}

#[test]
fn a_token_opens_what_it_says() {
    for owner in [Owner::group(1), Owner::session(1)] {
        let mut town = Town::new(1, &[7, 7]);
        let reader = Member::of(&owner, 1, Access::READ);
        let writer = Member::of(&owner, 2, Access::WRITE);
        let editor = Member::of(&owner, 3, Access::WRITE.and(Access::DELETE));
        let mut stores = |member: &Member, ns| member.stores(&owner, &mut town, ns, b"x");
        assert_eq!((stores(&reader, 11), stores(&writer, 11)), (FORBIDDEN, 200));
        assert_eq!((stores(&writer, -1), stores(&editor, -1)), (FORBIDDEN, 200), "an outbox forgets what it held");
        assert_eq!(reader.looks(&owner, &mut town, 1, 11), 200);
        assert_eq!(writer.looks(&owner, &mut town, 1, 11), FORBIDDEN);
        let hash = session_stream::account::hash::of(&owner.account, session_stream::account::Namespace(11), b"x");
        let now = town.wall();
        let ask = |member: &Member| {
            let more = json!({"timestamp": now, "messages": [hash]});
            member.signs(&owner, &["get_expiries", &now.to_string(), &hash], more)
        };
        assert_eq!(town.json(0, "get_expiries", &ask(&writer)).0, FORBIDDEN);
        assert_eq!(town.json(0, "get_expiries", &ask(&reader)).1["expiries"].as_object().unwrap().len(), 1);
        for (method, words, more) in [
            (
                "delete_all",
                vec!["delete_all".to_owned(), "11".to_owned(), now.to_string()],
                json!({"timestamp": now, "namespace": 11}),
            ),
            (
                "expire_all",
                vec!["expire_all".to_owned(), "11".to_owned(), now.to_string()],
                json!({"expiry": now, "namespace": 11}),
            ),
            (
                "delete_before",
                vec!["delete_before".to_owned(), "11".to_owned(), "1000000000".to_owned()],
                json!({"before": 1_000_000_000, "namespace": 11}),
            ),
            ("delete", vec!["delete".to_owned(), hash.clone()], json!({"messages": [hash]})),
        ] {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(town.json(0, method, &writer.signs(&owner, &words, more.clone())).0, FORBIDDEN, "{method}");
            assert_eq!(town.json(0, method, &editor.signs(&owner, &words, more)).0, 200, "{method}");
        }
    }
}

#[test]
fn who_may_not_delete_may_only_extend() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::group(1);
    let writer = Member::of(&owner, 1, Access::WRITE);
    let message = owner.message(&town, 11, b"x");
    let hash = town.json(0, "store", &message).1["hash"].as_str().unwrap().to_owned();
    let kept = town::FOUNDED + 86_400_000;
    let mut expire = |word: &str, expiry: u64| {
        let mut params = writer.signs(
            &owner,
            &["expire", word, &expiry.to_string(), &hash],
            json!({"expiry": expiry, "messages": [hash]}),
        );
        if !word.is_empty() {
            params[word] = true.into();
        }
        let (status, body) = town.json(0, "expire", &params);
        let entries = town.houses.iter().map(|house| body["swarm"][house.hex()]["updated"].clone()).collect::<Vec<_>>();
        (status, entries, body)
    };
    let (none, one) = (vec![json!([]); 2], vec![json!([hash]); 2]);
    assert_eq!(expire("", kept - 1000).1, none, "not sooner, at any member");
    assert_eq!(expire("", kept + 9_000_000).1, one);
    assert_eq!(expire("extend", kept + 99_000_000).1, one);
    let text = "expire: shorten parameter cannot be used with this subaccount token (missing delete access)";
    let (status, _, body) = expire("shorten", kept);
    assert_eq!((status, body), (400, text.into()));
}

#[test]
fn a_revoked_token_opens_nothing_at_any_member_but_the_notice() {
    let mut town = Town::new(1, &[7, 7, 7]);
    let owner = Owner::group(1);
    let all = Access::READ.and(Access::WRITE);
    let (out, other) = (Member::of(&owner, 1, all), Member::of(&owner, 2, all));
    assert_eq!(out.looks(&owner, &mut town, 2, 11), 200);
    let body = revoke(&owner, &mut town, &[out.token]);
    assert_eq!(body["swarm"][town.houses[1].hex()].as_object().unwrap().len(), 1, "nothing but the receipt");
    for number in 0..3 {
        assert_eq!(out.looks(&owner, &mut town, number, 11), FORBIDDEN);
        assert_eq!(out.looks(&owner, &mut town, number, -11), 200, "there it learns that it is out");
        assert_eq!(other.looks(&owner, &mut town, number, 11), 200);
        assert_eq!(revoked(&owner, &mut town, number), json!([base64(&out.token.0)]));
    }
    assert_eq!(out.stores(&owner, &mut town, -11, b"x"), FORBIDDEN);
    let wider =
        Member { token: Token::new(3, all.and(Access::DELETE), false, out.key.verifying_key().to_bytes()), ..out };
    let wider = Member { note: owner.key.sign(&wider.token.0).to_bytes(), ..wider };
    assert_eq!(wider.looks(&owner, &mut town, 0, 11), 200, "another token of the same key");
    let (first, second) = (Member::of(&owner, 1, all).token, wider.token);
    let body = unrevoke(&owner, &mut town, &[first, second]);
    assert_eq!(body["swarm"][town.houses[2].hex()]["count"], 1);
    assert_eq!(Member::of(&owner, 1, all).looks(&owner, &mut town, 1, 11), 200);
}

#[test]
fn a_revocation_outlives_the_mailbox() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let out = Member::of(&owner, 1, Access::READ);
    revoke(&owner, &mut town, &[out.token]);
    assert_eq!(out.looks(&owner, &mut town, 0, 11), FORBIDDEN, "of an account that never had a message");
    let mut message = owner.message(&town, 11, b"x");
    message["ttl"] = 10_000.into();
    assert_eq!(town.json(0, "store", &message).0, 200);
    town.pass(Duration::from_secs(60));
    assert_eq!(owner.mailbox(&mut town, 0, 11).len(), 0);
    assert_eq!(out.looks(&owner, &mut town, 0, 11), FORBIDDEN, "after the last message was swept");
}

#[test]
fn the_newest_fifty_revocations_count() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let members: Vec<Member> = (0..52).map(|number| Member::of(&owner, number, Access::READ)).collect();
    let tokens: Vec<Token> = members.iter().map(|member| member.token).collect();
    revoke(&owner, &mut town, &tokens[..1]);
    revoke(&owner, &mut town, &tokens[1..50]);
    assert_eq!(members[0].looks(&owner, &mut town, 0, 11), FORBIDDEN, "49 more keep the first");
    revoke(&owner, &mut town, &tokens[..1]);
    revoke(&owner, &mut town, &tokens[50..51]);
    assert_eq!(members[0].looks(&owner, &mut town, 0, 11), FORBIDDEN, "revoking again makes it new");
    assert_eq!(members[1].looks(&owner, &mut town, 0, 11), 200, "the longest revoked gave way");
    assert_eq!(revoked(&owner, &mut town, 0).as_array().unwrap().len(), 50);
    let now = town.wall();
    let too_many: Vec<String> = tokens[..51].iter().map(|token| base64(&token.0)).collect();
    let params = owner.signed(&["x"], json!({"timestamp": now, "revoke": too_many}));
    let text = "invalid request: invalid revoke: cannot revoke more than 50 subaccounts at once";
    assert_eq!(town.json(0, "revoke_subaccount", &params), (400, text.into()));
}

#[test]
fn tokens_are_written_in_three_ways() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let member = Member::of(&owner, 1, Access::READ);
    let now = town.wall();
    let mut look = member.signs(&owner, &["retrieve11", &now.to_string()], json!({"namespace": 11, "timestamp": now}));
    look["subaccount"] = HEXLOWER.encode(&member.token.0).into();
    look["subaccount_sig"] = base64(&member.note).trim_end_matches('=').into();
    assert_eq!(town.json(0, "retrieve", &look).0, 200);
    let cases = [
        ("subaccount", json!("abcd"), "invalid subaccount: expected base64 or hex-encoded subaccount token"),
        ("subaccount_sig", Json::Null, "invalid subaccount: subaccount_sig is required when using subaccount"),
        ("subaccount_sig", json!("ab"), "invalid subaccount signature: expected base64 encoded Ed25519 signature"),
    ];
    for (name, value, text) in cases {
        let mut bad = look.clone();
        bad[name] = value;
        assert_eq!(town.json(0, "retrieve", &bad), (400, format!("invalid request: {text}").into()));
    }
    let raw = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let signature = member.key.sign(format!("retrieve11{now}").as_bytes()).to_bytes();
    let mut look = [
        ("pubkey", raw(&owner.account.0)),
        ("namespace", 11u64.into()),
        ("timestamp", now.into()),
        ("signature", raw(&signature)),
        ("subaccount", raw(&member.token.0)),
        ("subaccount_sig", raw(&member.note)),
    ];
    assert_eq!(town.call(0, "retrieve", Value::dict(look.clone()).write(Form::Bt)).0, 200);
    look[4].1 = raw(&member.token.0[1..]);
    let (status, text) = town.call(0, "retrieve", Value::dict(look).write(Form::Bt));
    assert_eq!((status, &text[..]), (400, &b"invalid request: invalid subaccount token: invalid token length"[..]));
}

/// blake2b-512 of the parts under a key, as a scalar.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Scalar {
    let mut hash = blake2::Blake2bMac512::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| hash.update(part));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into_bytes().into())
}

#[test]
fn a_groups_member_signs_with_a_key_blinded_for_that_group() {
    let mut town = Town::new(1, &[7]);
    let group = Owner::group(1);
    let member = Owner::session(2);
    // The group's admin knows the member's Session id only, and so its Edwards key up to a sign: the positive one.
    let x = member.account.key();
    let positive = curve25519_dalek::MontgomeryPoint(x).to_edwards(0).unwrap();
    let mask = [7; 32];
    let k = keyed(&mask, &[&[Account::SESSION], &x, &group.account.0]);
    let public = (positive * k).compress().to_bytes();
    let token = Token::new(Account::GROUP, Access::READ.and(Access::WRITE), false, public);
    let note = group.key.sign(&token.0).to_bytes();
    // The member has the scalar behind it.
    let own = Scalar::from_bytes_mod_order(clamp_integer(member.key.to_scalar_bytes()));
    let flip = EdwardsPoint::mul_base(&own) != positive;
    let secret = k * if flip { -own } else { own };
    assert_eq!(EdwardsPoint::mul_base(&secret), CompressedEdwardsY(public).decompress().unwrap());
    let now = town.wall();
    let message = format!("retrieve11{now}");
    let r = keyed(b"SubaccountSig", &[&[1; 32], &public, message.as_bytes()]);
    let big_r = EdwardsPoint::mul_base(&r).compress().to_bytes();
    let mut h = sha2::Sha512::new();
    [&big_r[..], &public, message.as_bytes()].iter().for_each(|part| h.update(part));
    let s = r + Scalar::from_bytes_mod_order_wide(&h.finalize().into()) * secret;
    let signature = [big_r, s.to_bytes()].concat();
    let look = json!({
        "pubkey": group.account.hex(), "namespace": 11, "timestamp": now, "signature": base64(&signature),
        "subaccount": base64(&token.0), "subaccount_sig": base64(&note),
    });
    assert_eq!(town.json(0, "retrieve", &look).0, 200);
}
