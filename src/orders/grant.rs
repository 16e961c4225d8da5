//! Grants: a limit of one user or customer is higher until a time.

use super::orders::Orders;
use crate::directory::{CustomerLimits, LimitName, Subject, SubjectKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// A limit is raised for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(flatten)]
    pub subject: Subject,
    pub limit: LimitName,
    /// Added to the maximum.
    pub more: u64,
    pub until: Timestamp,
    pub why: Arc<str>,
    /// Who ordered it.
    pub by: Arc<str>,
    pub since: Timestamp,
}

/// Whose limits are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Grantees<'a> {
    pub customer: &'a str,
    /// The user that the sender is.
    pub user: Option<&'a str>,
    /// The user that logged in.
    pub login_user: Option<&'a str>,
}

impl Grantees<'_> {
    /// Whether a grant applies. A grant to a customer of a limit on users raises it for each of its users.
    fn are_meant_by(&self, grant: &Grant) -> bool {
        if grant.subject.kind == SubjectKind::Customer {
            return *grant.subject.name == *self.customer;
        }
        let user = match SubjectKind::of(grant.limit) {
            SubjectKind::Login => self.login_user,
            _ => self.user,
        };
        user == Some(&*grant.subject.name)
    }
}

impl Orders {
    /// The grants that raise a limit now.
    pub fn grants_to<'o>(&'o self, grantees: Grantees<'o>, now: Timestamp) -> impl Iterator<Item = &'o Grant> {
        let names =
            [Some(grantees.customer), grantees.user, grantees.login_user.filter(|&user| Some(user) != grantees.user)];
        let of_names = names.into_iter().flatten().flat_map(|name| self.grants_by_name(name));
        of_names.filter(move |grant| now < grant.until && grantees.are_meant_by(grant))
    }

    /// The limits as they are now.
    pub fn raised<'l>(
        &self,
        limits: &'l CustomerLimits,
        grantees: Grantees<'_>,
        now: Timestamp,
    ) -> Cow<'l, CustomerLimits> {
        let mut raised = Cow::Borrowed(limits);
        if !self.has_grants() {
            return raised;
        }
        for grant in self.grants_to(grantees, now) {
            raised.to_mut().raise(grant.limit, grant.more);
        }
        raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Limit;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn orders(grants: &[(SubjectKind, &str, LimitName, u64)]) -> Orders {
        let mut orders = Orders::default();
        for &(kind, name, limit, more) in grants {
            let subject = Subject { kind, customer: "acme".into(), name: name.into() };
            let (why, by) = ("fair".into(), "root".into());
            orders.grant(Grant { subject, limit, more, until: time(60), why, by, since: time(0) });
        }
        orders
    }

    #[test]
    fn a_grant_raises_its_own_limit_of_its_own_people_until_its_end() {
        use LimitName::{CustomerDay, LoginMessages, UserMessages, UserUniques};
        let orders = orders(&[
            (SubjectKind::User, "ann@acme.example", UserMessages, 5),
            (SubjectKind::User, "ann@acme.example", LoginMessages, 7),
            (SubjectKind::Customer, "acme", UserMessages, 100),
            (SubjectKind::Customer, "acme", CustomerDay, 9),
        ]);
        let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match name {
            UserUniques => Limit::UNLIMITED,
            _ => Limit::of(1),
        });
        let raised = |user, login_user, seconds| {
            let grantees = Grantees { customer: "acme", user, login_user };
            let raised = orders.raised(&limits, grantees, time(seconds));
            [UserMessages, UserUniques, LoginMessages, CustomerDay].map(|name| raised.counted(name).max)
        };
        let (ann, bob) = (Some("ann@acme.example"), Some("bob@acme.example"));
        assert_eq!(raised(ann, None, 0), [Some(106), None, Some(1), Some(10)]);
        assert_eq!(raised(bob, ann, 59), [Some(101), None, Some(8), Some(10)]);
        assert_eq!(raised(ann, ann, 59), [Some(106), None, Some(8), Some(10)]);
        assert_eq!(raised(ann, ann, 60), [Some(1), None, Some(1), Some(1)]);
        let stranger = Grantees { customer: "bolt", user: bob, login_user: None };
        assert!(matches!(orders.raised(&limits, stranger, time(0)), Cow::Borrowed(_)));
    }
}
