//! What moves house: every member tells every other what changed here and the other may have missed, and whoever holds
//! messages that are another swarm's tells that swarm's members. Neighbours: `store::replica` (the journal of changes and
//! the marks), `swarm` (who is told), `node` (carries questions and answers).
//!
//! There is one mechanism for all that can happen to a swarm. For each node that should know what we know there is a
//! cursor in our journal, kept on disk. What lies behind it is offered, a page of marks at a time ([`form::Offer`]); the
//! other answers which messages it lacks; they are carried in batches; and when all is acknowledged, which means that it
//! is on the other's disk, the cursor moves. So a newcomer is told everything, somebody who was away what it missed,
//! a crash on either side repeats a page, and a node that lost its disk is told everything again: it shows another epoch.
//!
//! Marks cost little, so they are offered even of what the fan-out has delivered already, once it has had its time.

pub mod form;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::account::Account;
use crate::rpc::Reply;
use crate::rpc::store::TTL_MAX;
use crate::store::replica::{Entry, Mark};
use crate::store::{Error, Message, Store};
use crate::swarm::{Change, NodeKey, Ours, SwarmId, Swarms};
use form::{Answer, BATCH_BYTES_MAX, OFFER_MAX, OVERHEAD, Offer};

/// How old a change is before it is told: the members are being asked to do the same, and whoever had it told first would
/// answer that there was nothing left to do.
const RIPE: Duration = Duration::from_secs(10);
/// How finely that is measured.
const RIPE_STEP: Duration = Duration::from_secs(1);

/// How long after a page that was the last one the next change is offered.
const PACE: Duration = Duration::from_secs(10);
/// How long to wait for somebody who takes from another first.
const BUSY: Duration = Duration::from_secs(2);
/// How long to wait after a failure, at first and at most.
const RETRY: Duration = Duration::from_secs(2);
/// See [`RETRY`].
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long an answer to an offer may take, and one to a batch.
const OFFER_PATIENCE: Duration = Duration::from_secs(10);
/// See [`OFFER_PATIENCE`].
const BATCH_PATIENCE: Duration = Duration::from_secs(60);
/// What the driver may take to say that patience ended.
const GRACE: Duration = Duration::from_secs(5);

/// How long somebody we take from may pause before we take from another.
const TAKING: Duration = Duration::from_secs(10);

/// Batches under way at a time: each is held in memory.
const BATCHES_MAX: usize = 3;

/// Changes read at a time in search of those that concern somebody.
const READ_MAX: usize = 10_000;
/// Accounts looked at at a time in search of those that are not ours.
const LOOK_MAX: usize = 2000;
/// How soon a search goes on.
const SEARCH_ON: Duration = Duration::from_millis(10);

/// How far ahead of us a clock may be that set an expiry, in milliseconds.
const CLOCK: u64 = 60 * 60 * 1000;

/// What is to be asked of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Whom.
    pub peer: NodeKey,
    /// Its number among what that one was asked: only the answer to the last question counts.
    pub number: u64,
    /// `offer` or `data`.
    pub method: &'static str,
    /// What.
    pub body: Bytes,
    /// How long to wait for the answer.
    pub patience: Duration,
}

/// What is told to whom, and from whom we take.
#[derive(Default)]
pub struct Transfer {
    peers: BTreeMap<NodeKey, Peer>,
    /// Swarms of which we hold accounts that are not ours.
    strays: BTreeSet<SwarmId>,
    search: Option<Search>,
    taking: Option<(NodeKey, Duration)>,
    /// The last change that may be told; nothing before the journal was looked at.
    ripe: Option<i64>,
    /// At which time which change was the last.
    ripening: VecDeque<(Duration, i64)>,
    /// Questions asked so far.
    asked: u64,
}

/// Looking through the accounts for those that are not ours.
#[derive(Default)]
struct Search {
    after: Option<Account>,
    found: BTreeSet<SwarmId>,
}

/// Somebody who should know what we know of its swarm's accounts.
struct Peer {
    swarm: SwarmId,
    span: [u8; 24],
    /// What it showed last.
    epoch: Option<[u8; 16]>,
    /// It knows the journal up to here.
    told: i64,
    /// Whether it knows that we are here, with this epoch.
    greeted: bool,
    step: Step,
    /// The number of the last question.
    asked: u64,
    failures: u32,
}

enum Step {
    /// Nothing is under way; something may be at that time.
    Idle(Duration),
    /// These entries are offered, up to that change.
    Offered { entries: Vec<Entry>, upto: i64, until: Duration },
    /// These messages are wanted; a batch of them is under way if `until` is set.
    Sending { rest: VecDeque<Mark>, upto: i64, until: Option<Duration> },
}

impl Transfer {
    /// The list has changed: others may have to be told.
    pub fn listed(&mut self, change: &Change, store: &Store, swarms: &Swarms, now: Duration) {
        let mapped = !change.founded.is_empty() || !change.dissolved.is_empty();
        if mapped || !matches!(change.ours, Ours::None | Ours::Same) {
            self.search = Some(Search::default());
        }
        self.choose(store, swarms, now);
    }

    /// Whom we tell: our swarm's others, and the members of swarms whose accounts we hold. Whoever was told already is
    /// not told again, as long as its swarm keeps what it kept.
    fn choose(&mut self, store: &Store, swarms: &Swarms, now: Duration) {
        let mut chosen = BTreeMap::new();
        for swarm in self.strays.iter().copied().chain(swarms.mine()) {
            let Some(span) = swarms.span(swarm).map(|span| span.to_bytes()) else { continue };
            for node in swarms.members(swarm).filter(|node| node.key != swarms.me()) {
                let peer = match self.peers.remove(&node.key) {
                    Some(peer) if peer.span == span => peer,
                    _ => {
                        // A cursor that cannot be read only makes us repeat ourselves.
                        let cursor = store.cursor(&node.key.0, &span).ok().flatten();
                        let (epoch, told) = cursor.map_or((None, 0), |(epoch, told)| (Some(epoch), told));
                        let step = Step::Idle(now);
                        Peer { swarm, span, epoch, told, greeted: false, step, asked: 0, failures: 0 }
                    }
                };
                chosen.insert(node.key, peer);
            }
        }
        self.peers = chosen;
    }

    /// When there may be something to do.
    pub fn next_wake(&self) -> Option<Duration> {
        let due = |peer: &Peer| match &peer.step {
            Step::Idle(at) => Some(*at),
            Step::Offered { until, .. } => Some(*until),
            Step::Sending { until, .. } => *until,
        };
        let search = self.search.as_ref().map(|_| Duration::ZERO);
        self.peers.values().filter_map(due).chain(search).min()
    }

    /// What is to be asked now.
    pub fn due(&mut self, store: &mut Store, swarms: &Swarms, now: Duration) -> Vec<Ask> {
        self.search_on(store, swarms, now);
        let ripe = self.ripen(store.last_change(), now);
        let mut budget = READ_MAX;
        let mut under_way = self.batches();
        let mut asks: Vec<Ask> = Vec::new();
        for (key, peer) in &mut self.peers {
            match &peer.step {
                Step::Offered { until, .. } | Step::Sending { until: Some(until), .. } if *until <= now => {
                    peer.failed(now);
                }
                Step::Idle(at) if *at <= now && budget > 0 => {
                    asks.extend(peer.offer(*key, store, swarms, (ripe, &mut budget), now));
                }
                Step::Sending { until: None, .. } if under_way < BATCHES_MAX => {
                    let batch = peer.batch(*key, store, now);
                    under_way += usize::from(batch.is_some());
                    asks.extend(batch);
                }
                _ => {}
            }
            // At most the last of them is this one's.
            if let Some(ask) = asks.last_mut().filter(|ask| ask.peer == *key) {
                self.asked += 1;
                (ask.number, peer.asked) = (self.asked, self.asked);
            }
        }
        asks
    }

    /// The last change that may be told. What was there at the start is old.
    fn ripen(&mut self, last: i64, now: Duration) -> i64 {
        if self.ripening.back().is_none_or(|(at, _)| *at + RIPE_STEP <= now) {
            self.ripening.push_back((now, last));
        }
        let ripe = self.ripe.get_or_insert(last);
        while let Some((at, change)) = self.ripening.front()
            && *at + RIPE <= now
        {
            *ripe = *change;
            self.ripening.pop_front();
        }
        *ripe
    }

    fn batches(&self) -> usize {
        self.peers.values().filter(|peer| matches!(peer.step, Step::Sending { until: Some(_), .. })).count()
    }

    fn search_on(&mut self, store: &Store, swarms: &Swarms, now: Duration) {
        let Some(search) = &mut self.search else { return };
        // A store that cannot be read is looked through at the next change.
        let accounts = store.accounts(search.after, LOOK_MAX).unwrap_or_default();
        let (mine, ended) = (swarms.mine(), accounts.len() < LOOK_MAX);
        search.after = accounts.last().copied();
        search.found.extend(accounts.iter().filter_map(|account| swarms.swarm_of(&account.0)));
        if ended {
            self.strays = std::mem::take(&mut search.found);
            self.strays.retain(|swarm| Some(*swarm) != mine);
            self.search = None;
            self.choose(store, swarms, now);
        }
    }

    /// A peer answered the question of that number, or it did not.
    pub fn replied(
        &mut self,
        (key, number): (NodeKey, u64),
        reply: Result<&[u8], ()>,
        store: &mut Store,
        now: Duration,
    ) {
        // Whoever has shown another epoch meanwhile, or keeps something else, was asked before it did.
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.asked == number) else { return };
        match reply.ok().and_then(|bytes| Answer::read(bytes).ok()) {
            Some(answer) => peer.heard(key, answer, store, now),
            None => peer.failed(now),
        }
    }

    /// Somebody on the list offers what it has; what is answered.
    ///
    /// # Errors
    /// The offer is none, or the store does not work.
    pub fn offered(
        &mut self,
        from: NodeKey,
        body: &[u8],
        store: &mut Store,
        swarms: &Swarms,
        (now, wall): (Duration, u64),
    ) -> Result<Bytes, Reply> {
        let offer = Offer::read(body).map_err(|_| Reply::text(400, "invalid offer"))?;
        self.met(from, offer.epoch, now);
        let epoch = store.epoch();
        let say = |wanted| Bytes::from(Answer { epoch, wanted }.write());
        // The lists differ for a moment: what is refused now must be offered again.
        if !offer.entries.iter().all(|entry| swarms.keeps(&entry.account().0)) {
            return Ok(say(None));
        }
        let mut wanted = Vec::new();
        for (at, entry) in offer.entries.into_iter().enumerate() {
            let trusted = trusts(swarms, &from, entry.account());
            let learned = match entry {
                Entry::Message(mark) => store.learn(&sane(mark, wall), trusted, wall),
                Entry::Revocation(mut revocation) if trusted => {
                    revocation.at = revocation.at.min(wall);
                    store.learn_revocation(&revocation).map(|_| false)
                }
                Entry::Revocation(_) => Ok(false),
            };
            if learned.map_err(failure)? {
                wanted.push(at);
            }
        }
        if wanted.is_empty() {
            return Ok(say(Some(wanted)));
        }
        // From one at a time, or each of them would send us the same.
        if self.taking.is_some_and(|(other, until)| other != from && until > now) {
            return Ok(say(None));
        }
        self.taking = Some((from, now + TAKING));
        Ok(say(Some(wanted)))
    }

    /// Somebody on the list brings messages; what is answered, and which of them were not here.
    ///
    /// # Errors
    /// They are none, or the store is full or does not work; some of them may have been taken.
    pub fn brought(
        &mut self,
        from: NodeKey,
        body: &[u8],
        store: &mut Store,
        swarms: &Swarms,
        (now, wall): (Duration, u64),
    ) -> Result<(Bytes, Vec<Message>), Reply> {
        let batch = form::read_batch(body).map_err(|_| Reply::text(400, "invalid data"))?;
        let epoch = store.epoch();
        if !batch.iter().all(|(mark, _)| swarms.keeps(&mark.account.0)) {
            return Ok((Answer { epoch, wanted: None }.write().into(), Vec::new()));
        }
        let mut fresh = Vec::new();
        for (mark, mut message) in batch {
            let mark = sane(mark, wall);
            message.expiry = mark.expiry;
            if store.take(&mark, &message, trusts(swarms, &from, &mark.account), wall).map_err(failure)? {
                fresh.push(message);
            }
        }
        if self.taking.is_some_and(|(other, _)| other == from) {
            self.taking = Some((from, now + TAKING));
        }
        Ok((Answer { epoch, wanted: Some(Vec::new()) }.write().into(), fresh))
    }

    /// Somebody is there, with this epoch: what it has to be told is told now.
    fn met(&mut self, key: NodeKey, epoch: [u8; 16], now: Duration) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.shows(epoch) {
            (peer.step, peer.asked) = (Step::Idle(now), 0);
        }
        match &mut peer.step {
            Step::Idle(at) if peer.failures > 0 => *at = now,
            _ => {}
        }
        peer.failures = 0;
    }
}

impl Peer {
    /// It shows its epoch; whether it is another, and knows nothing any more.
    fn shows(&mut self, epoch: [u8; 16]) -> bool {
        let changed = self.epoch.is_some_and(|known| known != epoch);
        self.epoch = Some(epoch);
        if changed {
            self.told = 0;
        }
        changed
    }

    /// Offers the next page of what concerns it, or looks again later.
    fn offer(
        &mut self,
        key: NodeKey,
        store: &mut Store,
        swarms: &Swarms,
        (ripe, budget): (i64, &mut usize),
        now: Duration,
    ) -> Option<Ask> {
        let (mut entries, mut upto, mut ended) = (Vec::new(), self.told, false);
        while entries.len() < OFFER_MAX && *budget > 0 && !ended {
            let Ok(changes) = store.changes(upto, OFFER_MAX.min(*budget)) else {
                self.failed(now);
                return None;
            };
            *budget -= changes.len();
            ended = changes.len() < OFFER_MAX;
            for (seq, entry) in changes {
                if seq > ripe {
                    ended = true;
                    break;
                }
                if swarms.swarm_of(&entry.account().0) == Some(self.swarm) {
                    if entries.len() == OFFER_MAX {
                        break;
                    }
                    entries.push(entry);
                }
                upto = seq;
            }
        }
        if entries.is_empty() && self.greeted {
            self.step = Step::Idle(now + if ended { PACE } else { SEARCH_ON });
            self.knows(key, store, upto);
            return None;
        }
        let body = Offer { epoch: store.epoch(), entries: entries.clone() }.write().into();
        self.step = Step::Offered { entries, upto, until: now + OFFER_PATIENCE + GRACE };
        Some(Ask { peer: key, number: 0, method: "offer", body, patience: OFFER_PATIENCE })
    }

    /// The next batch of what it wants; when there is none, it knows the page.
    fn batch(&mut self, key: NodeKey, store: &mut Store, now: Duration) -> Option<Ask> {
        let Step::Sending { rest, upto, until } = &mut self.step else { return None };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(mark) = rest.front() {
            // What is gone by now is in the journal again.
            if let Ok(Some(copy)) = store.copy_of(mark) {
                bytes += OVERHEAD + copy.1.data.len();
                if bytes > BATCH_BYTES_MAX {
                    break;
                }
                batch.push(copy);
            }
            rest.pop_front();
        }
        if batch.is_empty() {
            let upto = *upto;
            self.step = Step::Idle(now);
            self.knows(key, store, upto);
            return None;
        }
        *until = Some(now + BATCH_PATIENCE + GRACE);
        let body = form::write_batch(&batch).into();
        Some(Ask { peer: key, number: 0, method: "data", body, patience: BATCH_PATIENCE })
    }

    /// It answered.
    fn heard(&mut self, key: NodeKey, answer: Answer, store: &mut Store, now: Duration) {
        self.failures = 0;
        self.greeted = true;
        if self.shows(answer.epoch) {
            self.step = Step::Idle(now);
            return;
        }
        let step = std::mem::replace(&mut self.step, Step::Idle(now));
        match (step, answer.wanted) {
            (Step::Idle(at), _) => self.step = Step::Idle(at),
            (_, None) => self.step = Step::Idle(now + BUSY),
            (Step::Offered { upto, .. }, Some(wanted)) if wanted.is_empty() => self.knows(key, store, upto),
            (Step::Offered { entries, upto, .. }, Some(wanted)) => {
                let mark = |at| match entries.get(at) {
                    Some(Entry::Message(mark)) => Some(mark.clone()),
                    _ => None,
                };
                let rest = wanted.into_iter().take(OFFER_MAX).filter_map(mark).collect();
                self.step = Step::Sending { rest, upto, until: None };
            }
            (Step::Sending { rest, upto, .. }, Some(_)) => self.step = Step::Sending { rest, upto, until: None },
        }
    }

    /// It knows the journal up to there.
    fn knows(&mut self, key: NodeKey, store: &mut Store, upto: i64) {
        if upto == self.told {
            return;
        }
        self.told = upto;
        if let Some(epoch) = &self.epoch {
            // What is not remembered is offered again, and not wanted.
            let _ = store.move_cursor(&key.0, &self.span, epoch, upto);
        }
    }

    fn failed(&mut self, now: Duration) {
        let wait = RETRY.saturating_mul(1 << self.failures.min(5)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.step = Step::Idle(now + wait);
    }
}

/// Whether somebody's word that a message is gone counts: it keeps the account with us, or kept it before us.
fn trusts(swarms: &Swarms, from: &NodeKey, account: &Account) -> bool {
    let member = swarms.node(from).is_some_and(|node| Some(node.swarm) == swarms.mine());
    member || swarms.kept_before(from, &account.0)
}

/// A mark whose times are not beyond what anybody could have asked for.
fn sane(mark: Mark, now: u64) -> Mark {
    let latest = now + TTL_MAX + CLOCK;
    Mark { expiry: mark.expiry.min(latest), until: mark.until.min(latest), ..mark }
}

fn failure(error: Error) -> Reply {
    Reply::text(500, format!("Internal Server Error. {error}"))
}
