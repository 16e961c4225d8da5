//! An SMTP session as the limits on connections see it: it counts once, however often anybody asks about it.

use super::engine::Engine;
use super::log::{self, LoggedDecision};
use crate::connections::{Counted, client_net};
use crate::envelope::{AddressError, BadAddress, Envelope, Reply, bounded};
use crate::policy::{
    ConnectionFacts, MtaProtocol, Outcome, Verdict, is_exempt_connection, is_generic_helo, judge_connection,
    judge_generic_helo,
};
use crate::report::Reference;
use std::net::IpAddr;
use std::sync::Arc;

/// A session that has begun, until it ends.
pub struct Connection {
    engine: Arc<Engine>,
    protocol: MtaProtocol,
    limited: Option<Limited>,
    /// The session is refused, and so is all that it says from then on.
    refused: Option<Reply>,
}

struct Limited {
    client: IpAddr,
    counted: Counted,
    /// The end of the session will be seen.
    sees_end: bool,
    is_judged: bool,
    /// The name that was judged last.
    helo: Option<Box<str>>,
}

impl Connection {
    /// Counts a new session. `sees_end`: this one is dropped when the session ends. Clients of unknown address are not
    /// limited: they have nothing in common.
    ///
    /// Where no limit is set nothing is counted; one that is set later counts from then on.
    pub fn begin(engine: &Arc<Engine>, protocol: MtaProtocol, client: Option<IpAddr>, sees_end: bool) -> Connection {
        let snapshot = engine.snapshot();
        let limits = &snapshot.settings.connection;
        let is_limited = |client| limits.limit_anything() && !is_exempt_connection(client, limits, &snapshot.rules());
        let client = client.filter(|&client| is_limited(client));
        let limited = client.map(|client| {
            let net = client_net(client, limits.ipv6_prefix);
            let counted = engine.connections.count(net, sees_end, engine.ledger.now());
            Limited { client, counted, sees_end, is_judged: false, helo: None }
        });
        Connection { engine: engine.clone(), protocol, limited, refused: None }
    }

    /// What the client is answered, at whatever it says: nothing, unless it makes too many connections. `helo` is the
    /// name that it gave, in bounds; `None` where it has not come to that yet.
    pub fn judge(&mut self, helo: Option<&str>) -> Option<&Reply> {
        if self.refused.is_none()
            && let Some(limited) = &mut self.limited
            && let Some(verdict) = limited.judge(&self.engine, helo)
        {
            let reference = Reference::generate();
            let envelope = before_mail(limited.client, helo.unwrap_or_default());
            let decision = LoggedDecision {
                protocol: self.protocol,
                envelope: &envelope,
                verdict: &verdict,
                recipient: None,
                queue_id: None,
                recipients: None,
                reference,
            };
            self.engine.tally.count_session(&verdict);
            log::decided(&self.engine, &self.engine.snapshot(), &decision, || None);
            self.refused = verdict.refusal().map(|refusal| refusal.reply(reference));
        }
        self.refused.as_ref()
    }
}

impl Limited {
    /// The verdict, if there is anything to say.
    fn judge(&mut self, engine: &Engine, helo: Option<&str>) -> Option<Verdict> {
        if self.is_judged && self.helo.as_deref() == helo {
            return None;
        }
        let snapshot = engine.snapshot();
        let (limits, rules) = (&snapshot.settings.connection, snapshot.rules());
        let facts = ConnectionFacts {
            client: self.client,
            net: self.counted.net(),
            helo,
            last_minute: self.counted.last_minute(),
            open: self.sees_end.then(|| self.counted.open()),
        };
        self.helo = helo.map(bounded);
        let mut shadow = Vec::new();
        if !std::mem::replace(&mut self.is_judged, true) {
            let verdict = judge_connection(&facts, limits);
            if says_anything(&verdict) {
                self.counted.take_back();
            }
            if !verdict.passes() {
                return Some(verdict);
            }
            shadow = verdict.shadow;
        }
        let mut verdict = Verdict::of(Outcome::Accept);
        if helo.is_some_and(|helo| is_generic_helo(helo, &rules)) {
            let last_minute = self.counted.count_generic(engine.ledger.now());
            verdict = judge_generic_helo(&facts, last_minute, limits, &rules);
            if says_anything(&verdict) {
                self.counted.take_back_generic();
            }
        }
        verdict.shadow.extend(shadow);
        says_anything(&verdict).then_some(verdict)
    }
}

/// What is known before there is any sender.
fn before_mail(client: IpAddr, helo: &str) -> Envelope {
    Envelope::new(Some(client), helo, "", "", Err(BadAddress::new("", AddressError::Empty)))
}

fn says_anything(verdict: &Verdict) -> bool {
    !verdict.passes() || !verdict.shadow.is_empty()
}
