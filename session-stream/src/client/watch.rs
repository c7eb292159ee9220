//! A subscription that stays. It holds connections to several members of the account's swarm, renews before the hour is
//! over, follows the account when it moves, connects again when a connection ends, and fetches what came meanwhile. Each
//! message is given once, whoever tells of it. Neighbours: `link` (the connections), `client` (finds the swarm).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::link::Link;
use super::owner::Owner;
use super::{Client, ClientError, Target, wall};
use crate::bt;
use crate::value::Value;

/// Members of the swarm that are listened to at once.
const MEMBERS: usize = 3;
/// How often a subscription is renewed; nodes forget it after 65 minutes.
const RENEW: Duration = Duration::from_secs(55 * 60);
/// How soon a lost connection is tried again, doubled each time up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(250);
/// See [`BACK_OFF`].
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Hashes of messages that were given, so that they are not given again.
const SEEN_MAX: usize = 8192;
/// Messages that may wait to be taken.
const WAITING: usize = 64;
/// A subscription in a swarm that does not keep the account.
const WRONG_SWARM: i128 = 6;

/// A message in a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where.
    pub namespace: i16,
    /// Its name.
    pub hash: String,
    /// When it was sent, as its sender says: milliseconds since 1970.
    pub timestamp: u64,
    /// When it is thrown away.
    pub expiry: u64,
    /// What it says.
    pub data: Vec<u8>,
}

/// What a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A member of the swarm took the subscription.
    Subscribed,
    /// A message.
    Message(Message),
    /// The subscription is not possible, and will not be: in the node's words.
    Refused(String),
}

/// A running subscription; it ends when dropped.
pub struct Watch {
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// The next event; nothing after [`Event::Refused`].
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next message.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            match self.event().await? {
                Event::Message(message) => return Some(message),
                Event::Subscribed => {}
                Event::Refused(_) => return None,
            }
        }
    }
}

/// What a member's task reports.
enum Report {
    Up,
    Message(Message),
    /// The account is not here any more; what the node says of where it is.
    Moved(Json),
    /// The connection ended.
    Lost,
    Refused(String),
}

pub(super) fn start(client: Client, owner: Arc<Owner>, namespaces: &[i16]) -> Watch {
    let namespaces: BTreeSet<i16> = namespaces.iter().copied().collect();
    let (sender, events) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    let following = Following {
        client,
        owner,
        namespaces: namespaces.into_iter().collect(),
        events: sender,
        seen: Seen::default(),
        last: BTreeMap::new(),
    };
    tasks.spawn(following.run());
    Watch { events, _tasks: tasks }
}

struct Following {
    client: Client,
    owner: Arc<Owner>,
    namespaces: Vec<i16>,
    events: mpsc::Sender<Event>,
    seen: Seen,
    /// The last message of each namespace that was fetched.
    last: BTreeMap<i16, String>,
}

impl Following {
    async fn run(mut self) {
        let mut wait = BACK_OFF;
        loop {
            let account = self.owner.account().0;
            match self.client.swarm(&account).await {
                Ok(members) => {
                    if self.follow(members, &mut wait).await.is_none() {
                        return;
                    }
                }
                Err(ClientError::Refused { status: 400..=404, words, .. }) => {
                    let _ = self.events.send(Event::Refused(words)).await;
                    return;
                }
                Err(_) => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    /// Listens to a swarm until it is another one; nothing when nobody listens to us, or never will again.
    async fn follow(&mut self, members: Vec<Target>, wait: &mut Duration) -> Option<()> {
        let account = self.owner.account().0;
        let (reports, mut reported) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let listened = members.len().min(MEMBERS);
        for target in members.into_iter().take(MEMBERS) {
            let member = Member {
                client: self.client.clone(),
                owner: self.owner.clone(),
                namespaces: self.namespaces.clone(),
                reports: reports.clone(),
                target,
            };
            tasks.spawn(member.run());
        }
        drop(reports);
        let mut lost = 0;
        while let Some(report) = reported.recv().await {
            match report {
                Report::Up => {
                    (*wait, lost) = (BACK_OFF, 0);
                    self.events.send(Event::Subscribed).await.ok()?;
                    self.catch_up().await?;
                }
                Report::Message(message) => self.give(message).await?,
                Report::Moved(said) => {
                    if self.client.learn(&account, &said).is_none() {
                        self.client.forget(&account);
                    }
                    return Some(());
                }
                Report::Lost => {
                    lost += 1;
                    if lost > 2 * listened {
                        // Perhaps they are gone for good, and others are there.
                        self.client.forget(&account);
                        return Some(());
                    }
                }
                Report::Refused(words) => {
                    let _ = self.events.send(Event::Refused(words)).await;
                    return None;
                }
            }
        }
        Some(())
    }

    /// Fetches what came while nobody told us. A mailbox that cannot be read now is read at the next connection.
    async fn catch_up(&mut self) -> Option<()> {
        for namespace in self.namespaces.clone() {
            let after = self.last.get(&namespace).cloned();
            let Ok(messages) = self.client.retrieve_all(&self.owner, namespace, after.as_deref()).await else {
                continue;
            };
            if let Some(last) = messages.last() {
                self.last.insert(namespace, last.hash.clone());
            }
            for message in messages {
                self.give(message).await?;
            }
        }
        Some(())
    }

    async fn give(&mut self, message: Message) -> Option<()> {
        if self.seen.first(&message.hash) {
            self.events.send(Event::Message(message)).await.ok()?;
        }
        Some(())
    }
}

/// The newest hashes.
#[derive(Default)]
struct Seen {
    hashes: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether this is the first time.
    fn first(&mut self, hash: &str) -> bool {
        if !self.hashes.insert(hash.to_owned()) {
            return false;
        }
        self.order.push_back(hash.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

/// One member of the swarm that is listened to.
struct Member {
    client: Client,
    owner: Arc<Owner>,
    namespaces: Vec<i16>,
    reports: mpsc::Sender<Report>,
    target: Target,
}

impl Member {
    /// Subscribes and listens until the account moves or nobody takes our reports.
    async fn run(self) {
        let mut wait = BACK_OFF;
        while !self.reports.is_closed() {
            let ended = match Link::connect(&self.client.0.endpoint, &self.target).await {
                Ok(link) => self.listen(&link, &mut wait).await,
                Err(_) => Some(Report::Lost),
            };
            let Some(report) = ended else { return };
            let over = !matches!(report, Report::Lost);
            if self.reports.send(report).await.is_err() || over {
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    /// Subscribes on a connection and listens; what ended it, or nothing when nobody takes our reports.
    async fn listen(&self, link: &Link, wait: &mut Duration) -> Option<Report> {
        let mut first = true;
        loop {
            match subscribe(link, &self.owner, &self.namespaces).await {
                Ok(()) => {}
                Err(ended) => return Some(ended),
            }
            *wait = BACK_OFF;
            if std::mem::take(&mut first) {
                self.reports.send(Report::Up).await.ok()?;
            }
            let mut renewal = std::pin::pin!(sleep(RENEW));
            loop {
                tokio::select! {
                    () = &mut renewal => break,
                    push = link.pushed() => {
                        let Some(push) = push else { return Some(Report::Lost) };
                        let Some(report) = self.heard(&push.endpoint, &push.body) else { continue };
                        if matches!(report, Report::Moved(_)) {
                            return Some(report);
                        }
                        self.reports.send(report).await.ok()?;
                    }
                }
            }
        }
    }

    /// What a push says, if it is for us.
    fn heard(&self, endpoint: &str, body: &[u8]) -> Option<Report> {
        let note = bt::read(body).ok()?;
        match note.field("@")? {
            Value::Bytes(account) if account[..] == self.owner.account().0 => {}
            _ => return None,
        }
        match endpoint {
            "notify" => {
                message(&note).filter(|message| self.namespaces.contains(&message.namespace)).map(Report::Message)
            }
            "monitor_ended" => Some(Report::Moved(spelled(&note))),
            _ => None,
        }
    }
}

/// Asks a node to tell us of an account's messages.
async fn subscribe(link: &Link, owner: &Owner, namespaces: &[i16]) -> Result<(), Report> {
    let seconds = wall() / 1000;
    let named = namespaces.iter().map(i16::to_string).collect::<Vec<_>>().join(",");
    let signature = owner.sign(&format!("MONITOR{}{seconds}1{named}", owner.account().hex()));
    let who = match owner.ed25519() {
        Some(key) => ("P", Value::Bytes(key.to_vec())),
        None => ("p", Value::Bytes(owner.account().0.to_vec())),
    };
    let entries = [
        who,
        ("d", Value::Int(1)),
        ("n", Value::List(namespaces.iter().map(|namespace| Value::from(*namespace)).collect())),
        ("s", Value::Bytes(signature.to_vec())),
        ("t", seconds.into()),
    ];
    let answer = link.request("monitor", bt::write(&Value::dict(entries)).into()).await;
    let answer = match answer {
        Ok(answer) => bt::read(&answer).map_err(|_| Report::Lost)?,
        Err(ClientError::Refused { words, .. }) => return Err(Report::Refused(words)),
        Err(_) => return Err(Report::Lost),
    };
    match answer.field("errcode") {
        None if answer.field("success").is_some() => Ok(()),
        Some(Value::Int(WRONG_SWARM)) => Err(Report::Moved(spelled(&answer))),
        _ => Err(Report::Refused(spelled(&answer)["error"].as_str().unwrap_or("the node does not say why").to_owned())),
    }
}

/// A notification as a message.
fn message(note: &Value) -> Option<Message> {
    let number = |name: &str| match note.field(name) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let bytes = |name: &str| match note.field(name) {
        Some(Value::Bytes(bytes)) => Some(bytes.clone()),
        _ => None,
    };
    Some(Message {
        namespace: i16::try_from(number("n")?).ok()?,
        hash: String::from_utf8(bytes("h")?).ok()?,
        timestamp: u64::try_from(number("t")?).ok()?,
        expiry: u64::try_from(number("z")?).ok()?,
        data: bytes("~")?,
    })
}

/// What stands in bt, in JSON: bytes that are text as text, others in hexadecimal.
fn spelled(value: &Value) -> Json {
    match value {
        Value::Bytes(bytes) => match str::from_utf8(bytes) {
            Ok(text) => Json::from(text),
            Err(_) => Json::from(HEXLOWER.encode(bytes)),
        },
        Value::List(list) => list.iter().map(spelled).collect(),
        Value::Dict(dict) => {
            dict.iter().map(|(key, value)| (key.clone(), spelled(value))).collect::<Map<_, _>>().into()
        }
        other => other.to_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_seen_once_and_forgotten_after_thousands() {
        let mut seen = Seen::default();
        assert!(seen.first("a"));
        assert!(!seen.first("a"));
        (0..SEEN_MAX).for_each(|n| assert!(seen.first(&n.to_string())));
        assert!(seen.first("a"), "long ago");
        assert_eq!(seen.hashes.len(), SEEN_MAX);
    }
}
