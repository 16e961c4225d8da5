//! `grant` and `grants`: more for a while.

use super::protocol::Response;
use super::quota::find_subject;
use super::service::ControlService;
use crate::audit::Instruction;
use crate::directory::{Customer, Directory, LimitName, Subject, SubjectKind};
use jiff::Timestamp;
use std::sync::Arc;

impl ControlService {
    /// Without `until` the grant of the limit is taken back.
    pub(super) async fn grant(
        &self,
        name: &str,
        limit: LimitName,
        more: u64,
        until: Option<Timestamp>,
        order: Instruction,
    ) -> Response {
        let (subject, customer) = match grantee(name, limit, &self.engine.snapshot().directory) {
            Ok(found) => found,
            Err(words) => return Response::No { words },
        };
        let (kind, name) = (subject.kind.key(), subject.name.clone());
        let administration = &self.engine.administration;
        let (granted, event) = match until {
            Some(_) if customer.limits.counted(limit).max.is_none() => {
                let words = format!("{limit} is unlimited for {kind} {name}: there is nothing to raise");
                return Response::No { words };
            }
            Some(until) => (administration.grant(subject.clone(), limit, more, until, order.clone()).await, "grant"),
            None => (administration.take_back(subject.clone(), limit, order.clone()).await, "grant-taken-back"),
        };
        match granted {
            Ok(receipt) => self.log_order(event, &subject.clone().into(), &order, &receipt),
            Err(error) => return Response::No { words: error.to_string() },
        }
        let limits = self.engine.limits_of(&subject, &customer);
        let max = limits.counted(limit).max.unwrap_or(u64::MAX);
        // A limit of users that is granted to a customer is raised for each of its users.
        let whose = match (subject.kind, SubjectKind::of(limit)) {
            (SubjectKind::Customer, SubjectKind::Login) => format!("each login of customer {name}"),
            (SubjectKind::Customer, SubjectKind::User) => format!("each user of customer {name}"),
            (SubjectKind::User, SubjectKind::Login) => format!("the logins of user {name}"),
            _ => format!("{kind} {name}"),
        };
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        Response::Done { words: format!("{limit} of {whose} is {max}{until}") }
    }

    pub(super) fn grants(&self) -> Response {
        let (orders, now) = (self.engine.administration.orders(), self.engine.wall_time());
        let grants = orders.grants().into_iter().filter(|grant| now < grant.until).cloned().collect();
        Response::Grants { grants }
    }
}

/// Who gets the grant: a customer, or a user. A login's limits are raised for the user that it belongs to.
fn grantee(name: &str, limit: LimitName, directory: &Directory) -> Result<(Subject, Arc<Customer>), String> {
    let (subject, customer) = find_subject(name, directory).map_err(|error| error.to_string())?;
    if subject.kind != SubjectKind::Login {
        return Ok((subject, customer));
    }
    let user = match directory.owner_of_login(&subject.name) {
        Some((owner, user)) => owner.users.get(user),
        None => customer.users.find(&subject.name),
    };
    let (login, owner) = (&subject.name, &customer.name);
    match (user, SubjectKind::of(limit)) {
        (Some(user), SubjectKind::Login) => {
            let subject = Subject { kind: SubjectKind::User, customer: owner.clone(), name: user.address.clone() };
            Ok((subject, customer))
        }
        (Some(user), SubjectKind::User) => Err(format!(
            "{limit} is a limit of users, not of logins: write {}, the user of login {login}",
            user.address
        )),
        (_, SubjectKind::Customer) => Err(format!("{limit} is a limit of customers, not of logins: write {owner}")),
        (None, _) => Err(format!(
            "login {login} belongs to no registered user: a grant can raise {limit} only for everybody of customer {owner}"
        )),
    }
}
