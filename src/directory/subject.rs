//! Whose accounts a message goes on, and whom a limit or an order is for.

use super::limits::LimitName;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// On whose accounts a transaction goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    pub customer: Arc<str>,
    /// The registered user that the envelope sender is; per-user limits apply to it.
    pub user: Option<Arc<str>>,
    /// The SMTP AUTH login, in lower case; `login.*` limits apply to it.
    pub login: Option<Arc<str>>,
}

/// A user or a customer, as administrators name them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub kind: SubjectKind,
    pub customer: Arc<str>,
    /// The user's address or the login; the customer's name for the customer itself.
    pub name: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    Customer,
    User,
    Login,
}

impl Subject {
    /// A customer itself.
    pub fn customer(name: &Arc<str>) -> Subject {
        Subject { kind: SubjectKind::Customer, customer: name.clone(), name: name.clone() }
    }
}

impl SubjectKind {
    /// Whose limit it is.
    pub const fn of(limit: LimitName) -> SubjectKind {
        match limit {
            LimitName::UserMessages | LimitName::UserUniques => SubjectKind::User,
            LimitName::LoginMessages | LimitName::LoginUniques => SubjectKind::Login,
            LimitName::CustomerDay | LimitName::CustomerPeak => SubjectKind::Customer,
        }
    }

    pub const fn key(self) -> &'static str {
        match self {
            SubjectKind::Customer => "customer",
            SubjectKind::User => "user",
            SubjectKind::Login => "login",
        }
    }
}
