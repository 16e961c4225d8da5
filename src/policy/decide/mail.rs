//! The order of the rules at MAIL: whose mail it is, which setting lets it in, what happens to its sender.

use super::Evaluation;
use crate::directory::{Action, Customer, Parties};
use crate::envelope::{Address, AddressError, Sender};
use crate::policy::facts::{Context, Facts};
use crate::policy::front_end::{FrontEnd, Rewriting};
use crate::policy::reply::Refusal;
use crate::policy::rules::identify::{IdentifiedBy, Unidentified, identify};
use crate::policy::rules::sender::SenderRelation;
use crate::policy::rules::setting::find_entrance;
use crate::policy::rules::{archive, exempt, limits, rewrite, route, sender, size};
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};
use std::sync::Arc;

/// What the rules say of a transaction before its recipients are known.
#[derive(Clone, Debug)]
pub enum Admission {
    Exempt(Exemption),
    Admitted(Arc<Admitted>),
    Refused {
        refusal: Refusal,
        customer: Option<Arc<str>>,
        identified_by: Option<IdentifiedBy>,
        user: Option<Arc<str>>,
        /// The registered user that logged in.
        login_user: Option<Arc<str>>,
    },
}

/// A transaction that a setting lets in.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub customer: Arc<Customer>,
    pub identified_by: IdentifiedBy,
    pub setting: Arc<str>,
    /// Of every limit, where the setting has one.
    pub action: Option<Action>,
    pub parties: Parties,
    /// The registered user that logged in.
    pub login_user: Option<Arc<str>>,
    /// The sender must become this one, if the front end can do that.
    pub rewrite_sender_to: Option<Address>,
    /// Without being rewritten it must not leave: the sender is a further address of another customer's user.
    pub must_be_rewritten: bool,
    /// A copy of the message goes there, if the front end can do that.
    pub archive_to: Option<Address>,
    /// What the setting would have said if it were not in shadow.
    pub shadow: Option<Refusal>,
}

impl Evaluation {
    /// Begins with what is known at MAIL (relay service, sections 1 to 3).
    pub fn begin(cx: &Context, trace: &mut Trace) -> Evaluation {
        Evaluation {
            admission: admit(cx, trace),
            counted: Vec::new(),
            uncounted: Vec::new(),
            is_own_mail: false,
            is_local: cx.front_end.is_local,
            refused_local: None,
        }
    }

    /// What must be said to MAIL already: a message that declares itself too large, whomever it is for. Everything else is said to
    /// its recipients.
    pub fn mail(&self, cx: &Context, trace: &mut Trace) -> Option<Verdict> {
        let Admission::Admitted(admitted) = &self.admission else { return None };
        // Mail from sendmail(1) is refused at its end.
        if self.is_local {
            return None;
        }
        // Mail to exempt recipients would pass.
        if !cx.rules.relay.exempt_recipient_domains.is_empty() {
            return None;
        }
        let declared = cx.envelope.declared_size;
        let (refusal, in_shadow) = size::declared_too_large(declared, &admitted.customer.limits, trace)?;
        (!in_shadow).then(|| self.admission.refused(refusal, cx.front_end))
    }
}

fn admit(cx: &Context, trace: &mut Trace) -> Admission {
    let (envelope, rules) = (cx.envelope, &cx.rules);
    if exempt::is_exempt_client(cx, trace) {
        return Admission::Exempt(Exemption::Client);
    }
    let Some(facts) = &Facts::of(envelope) else {
        let refusal = bad_sender(cx);
        trace.note("sender", "refuse", || refusal.to_string());
        return Admission::Refused { refusal, customer: None, identified_by: None, user: None, login_user: None };
    };
    let identified = match identify(facts, rules, trace) {
        Ok(identified) => identified,
        Err(Unidentified { refusal, customer }) => {
            return Admission::Refused { refusal, customer, identified_by: None, user: None, login_user: None };
        }
    };
    let customer = identified.customer;
    let sender = sender::relation_of(facts.sender, customer, rules);
    let login = identified.login.as_ref();
    let user = sender::counted_user(facts.sender, &sender, login).map(|user| user.address.clone());
    let login_user = login.and_then(|login| login.user).map(|user| user.address.clone());
    let entrance = match find_entrance(facts, &identified, &sender, rules, trace) {
        Ok(entrance) => entrance,
        Err(refusal) => {
            let (customer, by) = (customer.name.clone(), identified.by);
            return Admission::Refused { refusal, customer: Some(customer), identified_by: Some(by), user, login_user };
        }
    };
    let rewrite_sender_to = rewrite::new_sender(facts, &identified, &sender, entrance.setting);
    rewrite::note(rewrite_sender_to.as_ref(), facts, cx.front_end.rewriting, trace);
    note_user(user.as_deref(), &sender, facts, trace);
    let archive_to = archive::archive_address(facts.sender, sender.user, customer);
    archive::note(archive_to.as_ref(), cx.front_end, trace);
    route::note_route(rewrite_sender_to.as_ref(), facts.sender, rules, trace);
    let counted_login = limits::counted_login(login, customer);
    Admission::Admitted(Arc::new(Admitted {
        customer: customer.clone(),
        identified_by: identified.by,
        setting: entrance.setting.name.clone(),
        action: entrance.setting.action,
        login_user,
        parties: Parties { customer: customer.name.clone(), user, login: counted_login },
        must_be_rewritten: rewrite_sender_to.is_some() && sender.of_another,
        rewrite_sender_to,
        archive_to,
        shadow: entrance.shadow,
    }))
}

fn note_user(user: Option<&str>, relation: &SenderRelation, facts: &Facts, trace: &mut Trace) {
    let sender = facts.sender;
    match user {
        Some(user) if facts.has_login() && (relation.is_forwarded || *sender == Sender::Empty) => {
            trace.note("user", "login", || format!("{sender} counts for the registered user {user}, who logged in"));
        }
        Some(user) if relation.is_forwarded => {
            trace.note("user", "found", || format!("{sender} is forwarded mail of the registered user {user}"));
        }
        Some(user) => trace.note("user", "found", || format!("the sender is the registered user {user}")),
        None => {
            trace.note("user", "none", || "the sender is no registered user: limits per user do not apply".to_owned());
        }
    }
}

pub(super) fn bad_sender(cx: &Context) -> Refusal {
    let error = cx.envelope.sender.as_ref().err().map(|bad| bad.error().clone());
    Refusal::BadSender(error.unwrap_or(AddressError::Empty))
}

impl Admission {
    /// The customer, once it is identified, and the registered user that logged in.
    pub(super) fn identified(&self) -> Option<(&Arc<str>, Option<&Arc<str>>)> {
        match self {
            Admission::Admitted(admitted) => Some((&admitted.parties.customer, admitted.login_user.as_ref())),
            Admission::Refused { customer: Some(customer), identified_by: Some(_), login_user, .. } => {
                Some((customer, login_user.as_ref()))
            }
            _ => None,
        }
    }

    pub(super) fn refused(&self, refusal: Refusal, front_end: FrontEnd) -> Verdict {
        self.verdict(Outcome::Refuse(Box::new(refusal)), front_end)
    }

    /// The verdict with `outcome`, saying whose mail it is as far as that is known.
    pub(super) fn verdict(&self, outcome: Outcome, front_end: FrontEnd) -> Verdict {
        match self {
            Admission::Exempt(_) => Verdict::of(outcome),
            Admission::Refused { customer, identified_by, user, .. } => Verdict {
                customer: customer.clone(),
                identified_by: *identified_by,
                user: user.clone(),
                ..Verdict::of(outcome)
            },
            Admission::Admitted(admitted) => admitted.verdict(outcome, front_end),
        }
    }
}

impl Admitted {
    /// The verdict with `outcome`, and what becomes of the message where the front end can do it.
    pub(super) fn verdict(&self, outcome: Outcome, front_end: FrontEnd) -> Verdict {
        let rewrites = front_end.rewriting == Rewriting::Possible;
        Verdict {
            customer: Some(self.parties.customer.clone()),
            identified_by: Some(self.identified_by),
            setting: Some(self.setting.clone()),
            user: self.parties.user.clone(),
            rewrite_sender_to: self.rewrite_sender_to.as_ref().filter(|_| rewrites).cloned(),
            archive_to: self.archive_to.as_ref().filter(|_| front_end.can_archive).cloned(),
            shadow: self.shadow.iter().cloned().collect(),
            outcome,
        }
    }
}
