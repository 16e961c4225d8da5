//! A customer as its file describes it, checked.

use super::archive::ArchiveAddress;
use super::limits::{Action, CustomerLimits};
use super::ranges::{AddressRanges, Range};
use crate::envelope::{Address, Domain, claims_of};
use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::{DefaultHashBuilder, HashSet};
use std::hash::BuildHasher;
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
    /// Who gets mail about abuse and limits.
    pub admins: Vec<Address>,
    /// Where a copy of each relayed message goes.
    pub archive_to: Option<ArchiveAddress>,
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
    pub name: Arc<str>,
    pub enabled: bool,
    pub allowed_senders: AllowedSenders,
    pub require_auth: bool,
    pub require_tls: bool,
    /// Of every limit, for mail that this setting lets in; `None`: each limit's own.
    pub action: Option<Action>,
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

impl Setting {
    /// Whether the client's address must lie in an enabled range. It need not only where there are no ranges, and a login
    /// is demanded in their place: no setting admits whoever asks.
    pub fn demands_address(&self) -> bool {
        !self.ranges.is_empty() || !self.require_auth
    }

    /// Whether a client's address alone lets it in: the setting is on, and asks for no login.
    pub fn lets_in_by_address(&self) -> bool {
        self.enabled && !self.require_auth
    }
}

impl Customer {
    /// Whether the domain, in canonical form, is one of the customer's or lies below one.
    pub fn owns_domain(&self, domain: &str) -> bool {
        OwnDomains::new(&self.domains).hold(domain)
    }

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

/// A customer's domains, prepared for many look-ups.
#[derive(Debug)]
pub(crate) struct OwnDomains<'a> {
    list: &'a [Domain],
    /// Only for long lists.
    set: HashSet<&'a str>,
}

impl<'a> OwnDomains<'a> {
    pub(crate) fn new(list: &'a [Domain]) -> OwnDomains<'a> {
        let set = if list.len() > 16 { list.iter().map(Domain::as_str).collect() } else { HashSet::new() };
        OwnDomains { list, set }
    }

    /// Whether `domain`, in canonical form, is one of them or lies below one; never across a public suffix.
    pub(crate) fn hold(&self, domain: &str) -> bool {
        claims_of(domain).any(|name| self.contain(name))
    }

    /// Whether `name` itself is one of them.
    pub(crate) fn contain(&self, name: &str) -> bool {
        match self.set.is_empty() {
            true => self.list.iter().any(|own| own.as_str() == name),
            false => self.set.contains(name),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl User {
    /// The name under which all logins of the user count, however they are spelled: the first of `logins`, else the address.
    pub fn login_account(&self) -> &str {
        self.logins.first().map_or(&*self.address, |login| &**login)
    }

    /// The address, the aliases, the further sender addresses: all that [`Users::find`] finds.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.address)
            .chain(self.aliases.iter().map(|alias| &**alias))
            .chain(self.senders.iter().map(|sender| &*sender.address))
    }

    fn nth_address(&self, n: usize) -> &str {
        match n.checked_sub(1) {
            None => &self.address,
            Some(n) => match self.aliases.get(n) {
                Some(alias) => alias,
                None => &self.senders[n - self.aliases.len()].address,
            },
        }
    }
}

/// Index of a user among its customer's users.
pub type UserId = u32;

/// The users of one customer, found by address, alias or further sender address (all in canonical form).
#[derive(Debug, Default)]
pub struct Users {
    list: Vec<User>,
    /// Places in `list`, so that a million users need no second copy of their addresses.
    by_address: HashTable<AddressOf>,
    hasher: DefaultHashBuilder,
}

/// An address, as the user and the place among [`User::addresses`].
#[derive(Clone, Copy, Debug)]
struct AddressOf {
    user: UserId,
    nth: u32,
}

/// An address that was given to two users, or twice to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateAddress {
    pub address: Box<str>,
    pub first: UserId,
    pub second: UserId,
}

impl Users {
    /// Later claims of an address that is taken already are ignored: the reader of the configuration reports them.
    pub fn new(list: Vec<User>) -> Users {
        Users::with_duplicates(list).0
    }

    /// As [`Users::new`], and tells the claims that were ignored.
    pub fn with_duplicates(mut list: Vec<User>) -> (Users, Vec<DuplicateAddress>) {
        list.shrink_to_fit();
        let hasher = DefaultHashBuilder::default();
        let mut duplicates = Vec::new();
        let mut by_address: HashTable<AddressOf> = HashTable::with_capacity(list.len());
        let text = |entry: &AddressOf| list[entry.user as usize].nth_address(entry.nth as usize);
        for (id, user) in list.iter().enumerate() {
            for (nth, address) in user.addresses().enumerate() {
                let new = AddressOf { user: id as UserId, nth: nth as u32 };
                let hash = hasher.hash_one(address);
                match by_address.entry(hash, |entry| text(entry) == address, |entry| hasher.hash_one(text(entry))) {
                    Entry::Vacant(place) => {
                        place.insert(new);
                    }
                    Entry::Occupied(place) => duplicates.push(DuplicateAddress {
                        address: address.into(),
                        first: place.get().user,
                        second: id as UserId,
                    }),
                }
            }
        }
        (Users { list, by_address, hasher }, duplicates)
    }

    /// The user whose address, alias or further sender address this is.
    pub fn find(&self, address: &str) -> Option<&User> {
        let user_of = |entry: &AddressOf| &self.list[entry.user as usize];
        let same = |entry: &AddressOf| user_of(entry).nth_address(entry.nth as usize) == address;
        self.by_address.find(self.hasher.hash_one(address), same).map(user_of)
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

/// The index follows from the list.
impl PartialEq for Users {
    fn eq(&self, other: &Users) -> bool {
        self.list == other.list
    }
}

impl Eq for Users {}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(address: &str, aliases: &[&str], senders: &[&str]) -> User {
        let sender = |&address: &&str| FurtherSender {
            address: address.into(),
            gateway: None,
            username: None,
            password_file: None,
        };
        User {
            address: address.into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            logins: Vec::new(),
            senders: senders.iter().map(sender).collect(),
        }
    }

    #[test]
    fn no_setting_admits_whoever_asks() {
        let range = || Range { description: String::new(), net: "192.0.2.0/24".parse().unwrap(), enabled: false };
        for (ranges, require_auth, demands) in
            [(vec![], false, true), (vec![], true, false), (vec![range()], false, true), (vec![range()], true, true)]
        {
            let setting = Setting {
                name: "office".into(),
                enabled: true,
                allowed_senders: AllowedSenders::Any,
                require_auth,
                require_tls: false,
                action: None,
                ranges,
                enabled_ranges: AddressRanges::default(),
                shadow: false,
            };
            assert_eq!(setting.demands_address(), demands, "{setting:?}");
        }
    }

    #[test]
    fn a_user_is_found_by_each_of_the_addresses() {
        let users = Users::new(vec![
            user("ann@a.example", &[], &[]),
            user("kim@a.example", &["k@a.example", "kk@a.example"], &["kim@b.example"]),
        ]);
        for address in ["kim@a.example", "k@a.example", "kk@a.example", "kim@b.example"] {
            assert_eq!(users.find(address).map(|user| &*user.address), Some("kim@a.example"), "{address}");
        }
        assert_eq!(users.find("nobody@a.example"), None);
        assert_eq!(Users::default().find("nobody@a.example"), None);
    }

    #[test]
    fn the_first_claim_of_an_address_holds() {
        let (users, duplicates) = Users::with_duplicates(vec![
            user("ann@a.example", &["a@a.example"], &[]),
            user("kim@a.example", &["a@a.example"], &["ann@a.example"]),
        ]);
        assert_eq!(users.find("a@a.example").map(|user| &*user.address), Some("ann@a.example"));
        let told: Vec<_> = duplicates.iter().map(|d| (&*d.address, d.first, d.second)).collect();
        assert_eq!(told, [("a@a.example", 0, 1), ("ann@a.example", 0, 1)]);
    }
}
