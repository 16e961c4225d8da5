//! The limits of a transaction, with what was granted for a while.

use crate::directory::CustomerLimits;
use crate::orders::{Grantees, Orders};
use crate::policy::decide::Admitted;
use crate::policy::trace::Trace;
use jiff::Timestamp;
use std::borrow::Cow;

impl Admitted {
    /// The limits that hold now. Like suspensions, grants apply at once: this is asked anew with each recipient and at
    /// the end of the message. `now` is asked for only if anything is granted.
    pub fn limits(
        &self,
        orders: &Orders,
        now: impl FnOnce() -> Timestamp,
        trace: &mut Trace,
    ) -> Cow<'_, CustomerLimits> {
        let limits = &self.customer.limits;
        if !orders.has_grants() {
            return Cow::Borrowed(limits);
        }
        let now = now();
        let (user, login_user) = (self.parties.user.as_deref(), self.login_user.as_deref());
        let grantees = Grantees { customer: &self.parties.customer, user, login_user };
        for grant in orders.grants_to(grantees, now) {
            trace.note("grant", "raise", || {
                let (kind, name) = (grant.subject.kind.key(), &grant.subject.name);
                let (limit, more, until, by, why) = (grant.limit, grant.more, grant.until, &grant.by, &grant.why);
                format!("{limit} is {more} more for {kind} {name} until {until}, by {by}: {why}")
            });
        }
        orders.raised(limits, grantees, now)
    }
}
