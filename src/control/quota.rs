//! Usage of limits, for `quota show` and `quota top`.

use crate::directory::{Customer, Directory, LimitName, Owner, Subject, SubjectKind, User};
use crate::envelope::{Address, canonical_login};
use crate::ledger::{LedgerError, MissingNode};
use crate::orders::{Suspension, Target};
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
    /// Its own suspension, or its customer's.
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
    #[error("\"{0}\" is not a customer; write a customer's name, a user's address, or login: and a login")]
    NoCustomer(String),
    #[error("the login \"{0}\" belongs to no customer")]
    NoLogin(String),
    #[error("\"{0}\" is not an address or alias of a registered user")]
    NoUser(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Stands before the name of a login.
pub(super) const LOGIN: &str = "login:";

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
    let (customer, user) = match directory.owner_of_login(&login) {
        Some((customer, user)) => (customer, customer.users.get(user)),
        None => by_domain().map(|customer| (customer, customer.users.find(&login)))?,
    };
    // A login of a registered user is one, however it is spelled.
    let name = user.map_or(&*login, User::login_account).into();
    let subject = Subject { kind: SubjectKind::Login, customer: customer.name.clone(), name };
    Some((subject, customer.clone()))
}

/// What the ledger has counted for a subject.
///
/// # Errors
/// The ledger is unavailable.
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
    let now = engine.wall_time();
    let suspended = orders.suspended_customer(&subject.customer, now);
    let suspended = suspended.or_else(|| orders.suspension_of(&Target::from(subject.clone()), now));
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

/// What `quota top` sorts by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RankBy {
    /// The share of the limit that is used.
    #[default]
    Share,
    /// The number that is used.
    Used,
}

/// Who ranks highest for each limit, at most `most`; and the nodes of the store that are unavailable.
///
/// # Errors
/// The ledger is unavailable.
pub async fn top(
    limits: &[LimitName],
    most: usize,
    by: RankBy,
    engine: &Engine,
) -> Result<(Vec<Top>, Vec<MissingNode>), LedgerError> {
    let snapshot = engine.snapshot();
    let max_of = |subject: &Subject, limit| {
        let customer = snapshot.directory.customer(&subject.customer)?;
        engine.limits_of(subject, customer).counted(limit).max
    };
    let (mut all, mut missing) = (Vec::new(), Vec::<MissingNode>::new());
    for &limit in limits {
        let rank = |subject: &Subject, used: u64| match by {
            RankBy::Used => used as f64,
            // What is unlimited has no share; a limit of 0 is always exceeded.
            RankBy::Share => max_of(subject, limit).map_or(0.0, |max| used as f64 / max as f64),
        };
        let ranking = engine.ledger.ranking(limit, most, &rank).await?;
        for node in ranking.missing {
            if !missing.iter().any(|known| known.address == node.address) {
                missing.push(node);
            }
        }
        for (subject, used) in ranking.most {
            let max = max_of(&subject, limit);
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
