//! Usage of limits, as `quota show` tells it.

use crate::administration::{Orders, Suspension};
use crate::directory::{Customer, Directory, Owner};
use crate::envelope::Address;
use crate::ledger::{Ledger, LedgerError, Subject, SubjectKind};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One user or customer with all its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub name: String,
    /// `user` or `customer`
    pub kind: String,
    pub limits: Vec<UsageOfLimit>,
    /// The suspension that stands against it, its own or its customer's.
    pub suspended: Option<Suspension>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageOfLimit {
    /// As in the configuration: `user.messages_per_day`
    pub limit: String,
    pub used: u64,
    /// Held by transactions that are open.
    pub reserved: u64,
    /// `null`: unlimited.
    pub max: Option<u64>,
    pub window_seconds: u32,
    /// When one more would fit (RFC 3339); `null` when it fits now.
    pub resets_at: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error("\"{0}\" is no customer; write a customer's name or a user's address")]
    NoCustomer(String),
    #[error("\"{0}\" is no address or alias of a registered user")]
    NoUser(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Finds a customer by its name, or a user by its address or an alias.
///
/// # Errors
/// When there is none.
pub fn find_subject(name: &str, directory: &Directory) -> Result<(Subject, Arc<Customer>), QuotaError> {
    let customer = directory.customer(name);
    if customer.is_some() || !name.contains('@') {
        let customer = customer.ok_or_else(|| QuotaError::NoCustomer(name.to_owned()))?;
        let (kind, name) = (SubjectKind::Customer, customer.name.clone());
        return Ok((Subject { kind, customer: name.clone(), name }, customer.clone()));
    }
    let no_user = || QuotaError::NoUser(name.to_owned());
    let address = Address::parse(name).map_err(|_| no_user())?;
    let customer = match directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(customer)) => customer,
        _ => return Err(no_user()),
    };
    let user = customer.users.find(address.as_str()).ok_or_else(no_user)?;
    let subject = Subject { kind: SubjectKind::User, customer: customer.name.clone(), name: user.address.clone() };
    Ok((subject, customer.clone()))
}

/// What the ledger has counted for it.
///
/// # Errors
/// When the ledger cannot answer.
pub async fn usage(
    subject: &Subject,
    customer: &Customer,
    orders: &Orders,
    ledger: &Ledger,
) -> Result<Usage, QuotaError> {
    let limits = ledger.usage(subject, &customer.limits).await?;
    let limits = limits
        .into_iter()
        .map(|usage| UsageOfLimit {
            limit: usage.limit.key().to_owned(),
            used: usage.used,
            reserved: usage.reserved,
            max: usage.max,
            window_seconds: usage.limit.window().seconds(),
            resets_at: usage.resets_at.map(|moment| rfc3339(ledger.wall(moment))),
        })
        .collect();
    let suspended = orders.suspended_customer(&subject.customer).or_else(|| orders.suspension_of(subject));
    let suspended = suspended.map(|suspension| Suspension::clone(suspension));
    Ok(Usage { name: subject.name.to_string(), kind: subject.kind.key().to_owned(), limits, suspended })
}

/// To the second, rounded up.
fn rfc3339(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000) + i64::from(unix_ms.rem_euclid(1000) > 0);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
