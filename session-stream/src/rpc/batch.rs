//! Calls that hold calls: `batch`, `sequence` and `ifelse`. What they hold is read whole before anything is done.
//! Neighbours: `node` (runs what they hold).

use std::collections::BTreeMap;

use super::fields::{Bad, Fields, Read};
use super::{Call, Desk, Reply, Said, VERSION};
use crate::value::{Form, Value};

/// Calls that a call can hold.
pub const CALLS_MAX: usize = 20;

/// Reads the calls of a `batch` or a `sequence`.
///
/// # Errors
/// What is wrong with the first that makes no sense.
pub fn calls(fields: &Fields<'_>) -> Read<Vec<Call>> {
    let Some(Value::List(requests)) = fields.value("requests") else {
        return Err("Invalid batch request: no valid \"requests\" field".into());
    };
    match fields.form {
        _ if requests.len() > CALLS_MAX => Err("Invalid batch request: subrequest limit exceeded".into()),
        Form::Json if requests.is_empty() => Err("Invalid batch request: no valid \"requests\" field".into()),
        Form::Bt if requests.is_empty() => Err("Invalid batch request: empty \"requests\" list".into()),
        _ => requests.iter().map(|request| part(fields, request)).collect::<Read<_>>().map(shared),
    }
}

/// All of them together are answered in one answer, which holds no more than that of one.
fn shared(mut calls: Vec<Call>) -> Vec<Call> {
    let looks = calls.iter().filter(|call| matches!(call, Call::Here(_))).count();
    for call in &mut calls {
        if let Call::Here(call) = call {
            call.share(looks);
        }
    }
    calls
}

fn part(fields: &Fields<'_>, request: &Value) -> Read<Call> {
    let json = fields.form == Form::Json;
    let request = fields.within(request).ok_or(if json {
        "Invalid batch request: requests must be objects"
    } else {
        "Invalid batch request: requests must be dicts"
    })?;
    let missing = |bt| if json { "Invalid batch request: subrequests must have method/params keys" } else { bt };
    let (method, params) = (request.text("method"), request.value("params").and_then(|params| fields.within(params)));
    let method =
        method.ok().flatten().ok_or_else(|| missing("Invalid batch request: subrequests must have a method"))?;
    // JSON misses either before it looks the method up.
    if json && params.is_none() {
        return Err(missing("").into());
    }
    let unknown = || Bad(format!("Invalid batch subrequest: invalid method \"{method}\""));
    if !Call::is_known(method) {
        return Err(unknown());
    }
    let params = params.ok_or("Invalid batch request: subrequests must have a params dict")?;
    match Call::known(method, &params).ok_or_else(unknown)?? {
        Call::Batch(_) | Call::Sequence(_) | Call::Branch(_) => {
            Err("Invalid batch subrequest: subrequests may not contain meta-requests".into())
        }
        call => Ok(call),
    }
}

/// `ifelse`: one call or another, or nothing.
pub struct Branch {
    condition: Condition,
    then: Option<Call>,
    otherwise: Option<Call>,
}

/// All of it has to be so.
#[derive(Default)]
struct Condition {
    hard_fork: Bounds<2>,
    version: Bounds<3>,
    height: Bounds<1>,
}

/// At least the first, and below the second.
struct Bounds<const N: usize>(Option<[i64; N]>, Option<[i64; N]>);

impl<const N: usize> Default for Bounds<N> {
    fn default() -> Self {
        Bounds(None, None)
    }
}

impl<const N: usize> Bounds<N> {
    fn read(fields: &Fields<'_>, name: &str) -> Read<Bounds<N>> {
        // What is left out at the end is zero, what is too much does not count.
        let numbers = |name: &str| -> Read<Option<[i64; N]>> {
            let numbers = fields.integers(name)?.filter(|numbers| !numbers.is_empty());
            Ok(numbers.map(|numbers| std::array::from_fn(|at| numbers.get(at).copied().unwrap_or(0))))
        };
        Ok(Bounds(numbers(&format!("{name}_at_least"))?, numbers(&format!("{name}_before"))?))
    }

    fn hold(&self, found: [i64; N]) -> bool {
        self.0.is_none_or(|least| found >= least) && self.1.is_none_or(|end| found < end)
    }

    fn is_some(&self) -> bool {
        self.0.is_some() || self.1.is_some()
    }
}

impl Branch {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Branch> {
        let condition = fields
            .value("if")
            .and_then(|condition| fields.within(condition))
            .ok_or("Invalid ifelse request: no valid \"if\" field")?;
        let condition = Condition {
            hard_fork: Bounds::read(&condition, "hf")?,
            version: Bounds::read(&condition, "v")?,
            height: Bounds::read(&condition, "height")?,
        };
        if !(condition.hard_fork.is_some() || condition.version.is_some() || condition.height.is_some()) {
            return Err("Invalid ifelse request: must specify at least one \"if\" condition".into());
        }
        let (then, otherwise) = (one(fields, "then")?, one(fields, "else")?);
        if then.is_none() && otherwise.is_none() {
            return Err("Invalid ifelse request: at least one of \"then\"/\"else\" required".into());
        }
        Ok(Branch { condition, then, otherwise })
    }

    /// How many plain calls it is as much work as, at most.
    pub fn work(&self) -> usize {
        self.then.iter().chain(&self.otherwise).map(Call::work).max().unwrap_or(1)
    }

    /// What is said of the condition, and the call that is to be done.
    pub fn decide(self, desk: &Desk<'_>) -> (BTreeMap<String, Value>, Option<Call>) {
        let (hard, soft) = desk.swarms.hard_fork();
        let height = desk.swarms.height();
        let Condition { hard_fork, version, height: heights } = &self.condition;
        let holds = hard_fork.hold([hard.into(), soft.into()])
            && version.hold(VERSION.map(i64::from))
            && heights.hold([i64::try_from(height).unwrap_or(i64::MAX)]);
        let said = [
            ("hf", Value::List(vec![hard.into(), soft.into()])),
            ("v", Value::List(VERSION.map(Value::from).to_vec())),
            ("height", height.into()),
            ("condition", holds.into()),
        ];
        let said = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (said, if holds { self.then } else { self.otherwise })
    }
}

/// The call of a branch.
fn one(fields: &Fields<'_>, key: &str) -> Read<Option<Call>> {
    let Some(request) = fields.value(key) else { return Ok(None) };
    let json = fields.form == Form::Json;
    let bad = |json_says: &str, bt_says: &str| {
        Bad(format!("Invalid ifelse request: {key} {}", if json { json_says } else { bt_says }))
    };
    let request = fields.within(request).ok_or_else(|| bad("must be an object", "must be a dict"))?;
    let both = "must have method/params keys";
    let method = request.text("method").ok().flatten().ok_or_else(|| bad(both, "missing method"))?;
    let params = request.value("params").and_then(|params| fields.within(params));
    if !Call::is_known(method) {
        return Err(Bad(format!("Invalid ifelse request method \"{key}\"")));
    }
    let params = params.ok_or_else(|| bad(both, "missing params"))?;
    Call::known(method, &params).transpose()
}

/// A reply as it stands in the answer of the call that holds it.
pub fn nested(reply: Reply) -> Value {
    let body = match reply.body {
        Said::Dict(value) => value,
        Said::Text(text) => text.into(),
        Said::Raw(bytes) => Value::Bytes(bytes.to_vec()),
    };
    Value::dict([("code", reply.status.into()), ("body", body)])
}
