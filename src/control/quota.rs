//! Usage of limits, as `quota show` tells it.

use crate::directory::{Customer, Directory, LimitName, Owner, Subject, SubjectKind};
use crate::envelope::{Address, canonical_login};
use crate::ledger::{LedgerError, MissingNode};
use crate::orders::Suspension;
use crate::session::Engine;
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
    /// With what is granted; `null`: unlimited.
    pub max: Option<u64>,
    /// How much of `max` is granted for a while.
    pub granted: u64,
    pub window_seconds: u32,
    /// When one more would fit (RFC 3339); `null` when it fits now.
    pub resets_at: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error("\"{0}\" is no customer; write a customer's name, a user's address, or login: and a login")]
    NoCustomer(String),
    #[error("the login \"{0}\" belongs to no customer")]
    NoLogin(String),
    #[error("\"{0}\" is no address or alias of a registered user")]
    NoUser(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Stands before the name of a login.
const LOGIN: &str = "login:";

/// Finds a customer by its name, a user by its address or an alias, or a login by its name after `login:`.
///
/// # Errors
/// When there is none.
pub fn find_subject(name: &str, directory: &Directory) -> Result<(Subject, Arc<Customer>), QuotaError> {
    if let Some(login) = name.strip_prefix(LOGIN) {
        return find_login(login, directory).ok_or_else(|| QuotaError::NoLogin(login.to_owned()));
    }
    let customer = directory.customer(name);
    if customer.is_some() || !name.contains('@') {
        let customer = customer.ok_or_else(|| QuotaError::NoCustomer(name.to_owned()))?;
        let (kind, name) = (SubjectKind::Customer, customer.name.clone());
        return Ok((Subject { kind, customer: name.clone(), name }, customer.clone()));
    }
    let no_user = || QuotaError::NoUser(name.to_owned());
    let address = Address::from_either(name).map_err(|_| no_user())?;
    let customer = match directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(customer)) => customer,
        _ => return Err(no_user()),
    };
    let user = customer.users.find(address.as_str()).ok_or_else(no_user)?;
    let subject = Subject { kind: SubjectKind::User, customer: customer.name.clone(), name: user.address.clone() };
    Ok((subject, customer.clone()))
}

/// A login counts for the customer that it identifies.
fn find_login(login: &str, directory: &Directory) -> Option<(Subject, Arc<Customer>)> {
    let login = canonical_login(login);
    let by_domain = || match directory.owner_of_domain(login.rsplit_once('@')?.1)?.owner {
        Owner::Customer(customer) => Some(customer),
        Owner::Unusable => None,
    };
    let customer = directory.owner_of_login(&login).map(|(customer, _)| customer).or_else(by_domain)?;
    let subject = Subject { kind: SubjectKind::Login, customer: customer.name.clone(), name: login.into() };
    Some((subject, customer.clone()))
}

/// What the ledger has counted for it.
///
/// # Errors
/// When the ledger cannot answer.
pub async fn usage(subject: &Subject, customer: &Customer, engine: &Engine) -> Result<Usage, QuotaError> {
    let (ledger, orders, raised) =
        (&engine.ledger, engine.administration.orders(), engine.limits_of(subject, customer));
    let limits = ledger.usage(subject, &raised).await?;
    let limits = limits
        .into_iter()
        .map(|usage| UsageOfLimit {
            limit: usage.limit.key().to_owned(),
            used: usage.used,
            reserved: usage.reserved,
            max: usage.max,
            granted: granted(usage.max, customer.limits.counted(usage.limit).max),
            window_seconds: usage.limit.window().seconds(),
            resets_at: usage.resets_at.map(|moment| rfc3339(ledger.wall(moment))),
        })
        .collect();
    let suspended = orders.suspended_customer(&subject.customer).or_else(|| orders.suspension_of(subject));
    let suspended = suspended.map(|suspension| Suspension::clone(suspension));
    Ok(Usage { name: subject.name.to_string(), kind: subject.kind.key().to_owned(), limits, suspended })
}

fn granted(max: Option<u64>, without: Option<u64>) -> u64 {
    max.zip(without).map_or(0, |(max, without)| max - without)
}

/// One line of `quota top`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Top {
    pub limit: LimitName,
    #[serde(flatten)]
    pub subject: Subject,
    pub used: u64,
    /// With what is granted; `null`: unlimited, or not configured any more.
    pub max: Option<u64>,
}

/// Who has used most of each limit, the most first, at most so many; and the parts of the store that did not answer.
///
/// # Errors
/// When the ledger cannot answer.
pub async fn top(
    limits: &[LimitName],
    most: usize,
    engine: &Engine,
) -> Result<(Vec<Top>, Vec<MissingNode>), LedgerError> {
    let snapshot = engine.snapshot();
    let (mut all, mut missing) = (Vec::new(), Vec::<MissingNode>::new());
    for &limit in limits {
        let ranking = engine.ledger.top(limit, most).await?;
        for part in ranking.missing {
            if !missing.iter().any(|known| known.address == part.address) {
                missing.push(part);
            }
        }
        for (subject, used) in ranking.most {
            let customer = snapshot.directory.customer(&subject.customer);
            let max = customer.and_then(|customer| engine.limits_of(&subject, customer).counted(limit).max);
            all.push(Top { limit, subject, used, max });
        }
    }
    Ok((all, missing))
}

/// To the second, rounded up.
fn rfc3339(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000) + i64::from(unix_ms.rem_euclid(1000) > 0);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
