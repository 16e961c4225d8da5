//! A customer as its file describes it, checked.

use super::limits::CustomerLimits;
use super::ranges::{AddressRanges, Range};
use crate::envelope::{Address, Domain};
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An organisation with domains, users, licences and relay settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Customer {
    pub name: Arc<str>,
    /// Subdomains included.
    pub domains: Vec<Domain>,
    /// At least 1.
    pub licenses: u32,
    pub billing: Billing,
    /// Who gets abuse and quota mail.
    pub admins: Vec<Address>,
    pub archive_to: Option<Address>,
    pub user_gateways: bool,
    pub outbound_gateway: Option<String>,
    pub limits: CustomerLimits,
    /// In file order, disabled ones too.
    pub settings: Vec<Setting>,
    pub users: Users,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Billing {
    Paid,
    Unpaid,
    Trial,
}

/// One way in for a customer's mail.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub enabled: bool,
    pub allowed_senders: AllowedSenders,
    pub require_auth: bool,
    pub require_tls: bool,
    /// As written, disabled ones too. If there is any, only mail from the enabled ones counts as coming from the customer.
    pub ranges: Vec<Range>,
    /// The enabled ones, prepared.
    pub enabled_ranges: AddressRanges,
    pub shadow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllowedSenders {
    RegisteredUsers,
    OwnDomains,
    Any,
}

impl AllowedSenders {
    /// As in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            AllowedSenders::RegisteredUsers => "registered-users",
            AllowedSenders::OwnDomains => "own-domains",
            AllowedSenders::Any => "any",
        }
    }
}

impl Customer {
    /// Whether the client's address lies in an enabled range of an enabled setting.
    pub fn holds_client(&self, client: IpAddr) -> bool {
        self.settings.iter().any(|setting| setting.enabled && setting.enabled_ranges.contains(client))
    }
}

/// A registered address with its aliases, logins and further sender addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub address: Arc<str>,
    pub aliases: Vec<Box<str>>,
    pub logins: Vec<Box<str>>,
    pub senders: Vec<FurtherSender>,
}

/// An address outside the customer's domains that a user may send from, as it is.
#[derive(Debug, PartialEq, Eq)]
pub struct FurtherSender {
    pub address: Box<str>,
    pub gateway: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<std::path::PathBuf>,
}

/// Index of a user among its customer's users.
pub type UserId = u32;

/// The users of one customer, found by address, alias or further sender address (all in canonical form).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Users {
    list: Vec<User>,
    by_address: HashMap<Box<str>, UserId>,
}

impl Users {
    /// Later claims of an address that is taken already are ignored: the reader of the configuration reports them.
    pub fn new(list: Vec<User>) -> Users {
        let mut by_address = HashMap::with_capacity(list.len());
        for (id, user) in list.iter().enumerate() {
            let addresses = std::iter::once(&*user.address)
                .chain(user.aliases.iter().map(|alias| &**alias))
                .chain(user.senders.iter().map(|sender| &*sender.address));
            for address in addresses {
                by_address.entry(address.into()).or_insert(id as UserId);
            }
        }
        Users { list, by_address }
    }

    /// The user whose address, alias or further sender address this is.
    pub fn find(&self, address: &str) -> Option<&User> {
        self.by_address.get(address).map(|&id| &self.list[id as usize])
    }

    pub fn get(&self, id: UserId) -> Option<&User> {
        self.list.get(id as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
