//! Mail of a user with signs of abuse is deferred (`on_abuse = "defer"`; relay service, section 8).

use crate::directory::Parties;
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;

pub fn held_back(parties: &Parties, cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    let user = parties.user.as_ref()?;
    let why = cx.live.signs_of_abuse(parties)?;
    trace.note("abuse", "refuse", || format!("{user} has signs of abuse, and on_abuse is \"defer\": {why}"));
    Some(Refusal::HeldBack { user: user.clone(), why })
}
