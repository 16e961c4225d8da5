//! What the running daemon knows, for the rules.

use super::engine::{Engine, Snapshot};
use crate::abuse::describe;
use crate::clock::Moment;
use crate::config::OnAbuse;
use crate::directory::Subject;
use crate::envelope::Address;
use crate::ledger::RecipientKey;
use crate::policy::LiveFacts;
use jiff::Timestamp;

/// The facts of this moment, for a transaction that keeps to `snapshot`.
pub struct Live<'a> {
    pub engine: &'a Engine,
    pub snapshot: &'a Snapshot,
}

impl LiveFacts for Live<'_> {
    fn now(&self) -> Timestamp {
        self.engine.wall_time()
    }

    fn wall_clock(&self, moment: Moment) -> i64 {
        self.engine.ledger.wall(moment)
    }

    fn recipient_key(&self, canonical_address: &str) -> RecipientKey {
        self.engine.ledger.recipient_key(canonical_address)
    }

    fn signs_of_abuse(&self, user: &Subject) -> Option<Box<str>> {
        let abuse = self.snapshot.settings.abuse.as_ref().filter(|abuse| abuse.on_abuse == OnAbuse::Defer)?;
        let signs = self.engine.watch.signs_of(user, abuse, self.engine.ledger.now());
        (!signs.is_empty()).then(|| describe(&signs, abuse.window).into())
    }

    fn has_own_mail_for(&self, recipient: &Address) -> bool {
        self.engine.own_mail.is_on_its_way_to(recipient)
    }
}
