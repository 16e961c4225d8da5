//! `user suspend`, `customer suspend`, and the end of both.

use super::protocol::Response;
use super::quota::find_subject;
use super::service::ControlService;
use crate::administration::Receipt;
use crate::audit::Instruction;
use crate::directory::{Directory, Subject, SubjectKind};
use crate::envelope::Address;
use crate::report::{Level, LogLine};

impl ControlService {
    pub(super) async fn suspend(&self, kind: SubjectKind, name: &str, order: Instruction) -> Response {
        let subject = match find(kind, name, &self.engine.snapshot().directory) {
            Ok(subject) => subject,
            Err(words) => return Response::No { words },
        };
        match self.engine.administration.suspend(subject.clone(), order.clone()).await {
            Ok(completed) => {
                self.log_order("suspend", &subject, &order, &completed.receipt);
                let again =
                    completed.outcome.map_or_else(String::new, |before| format!(" (since {} already)", before.since));
                let words = format!("{} {} is suspended{again}: all its mail is refused", kind.key(), subject.name);
                Response::Done { words }
            }
            Err(error) => Response::No { words: error.to_string() },
        }
    }

    pub(super) async fn resume(&self, kind: SubjectKind, name: &str, order: Instruction) -> Response {
        let found = find(kind, name, &self.engine.snapshot().directory);
        let subject = match self.suspended_by_name(kind, name).map_or(found, Ok) {
            Ok(subject) => subject,
            Err(words) => return Response::No { words },
        };
        match self.engine.administration.resume(subject.clone(), order.clone()).await {
            Ok(completed) => {
                self.log_order("resume", &subject, &order, &completed.receipt);
                Response::Done { words: format!("{} {} may send again", kind.key(), subject.name) }
            }
            Err(error) => Response::No { words: error.to_string() },
        }
    }

    /// Whoever was suspended under this name, configured or not.
    fn suspended_by_name(&self, kind: SubjectKind, name: &str) -> Option<Subject> {
        let orders = self.engine.administration.orders();
        let suspension = match kind {
            SubjectKind::Customer => orders.suspended_customer(name),
            _ => orders.suspended_user(Address::from_either(name).ok()?.as_str()),
        };
        suspension.map(|suspension| suspension.subject.clone())
    }

    pub(super) fn log_order(&self, event: &'static str, subject: &Subject, order: &Instruction, receipt: &Receipt) {
        let line = LogLine::event(event)
            .field("kind", subject.kind.key())
            .field("name", &subject.name)
            .field("customer", &subject.customer)
            .field("by", &order.by)
            .field("audit", receipt)
            .optional("why", Some(&order.why).filter(|why| !why.is_empty()));
        self.engine.log.write(Level::Info, line);
    }
}

fn find(kind: SubjectKind, name: &str, directory: &Directory) -> Result<Subject, String> {
    let (subject, _) = find_subject(name, directory).map_err(|error| error.to_string())?;
    match (kind, subject.kind) {
        (asked, found) if asked == found => Ok(subject),
        (SubjectKind::Customer, _) => Err(format!("\"{name}\" is a user: write `relaykeeper user` instead")),
        _ => Err(format!("\"{name}\" is a customer: write `relaykeeper customer` instead")),
    }
}
