//! `grant` and `grants`: more for a while.

use super::protocol::Response;
use super::quota::find_subject;
use super::service::ControlService;
use crate::audit::Instruction;
use crate::directory::{LimitName, SubjectKind};
use jiff::Timestamp;

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
        let (subject, customer) = match find_subject(name, &self.engine.snapshot().directory) {
            Ok(found) => found,
            Err(error) => return Response::No { words: error.to_string() },
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
            Ok(receipt) => self.log_order(event, &subject, &order, &receipt),
            Err(error) => return Response::No { words: error.to_string() },
        }
        let limits = self.engine.limits_of(&subject, &customer);
        let max = limits.counted(limit).max.unwrap_or(u64::MAX);
        // A limit on users that is granted to a customer is raised for each of its users.
        let whose = match subject.kind == SubjectKind::Customer && SubjectKind::of(limit) != SubjectKind::Customer {
            true => format!(
                "{} of customer {name}",
                if SubjectKind::of(limit) == SubjectKind::Login { "each login" } else { "each user" }
            ),
            false => format!("{kind} {name}"),
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
