//! The snapshot: who owns which domain and login. A look-up costs the same with ten customers as with 100,000.

use super::customer::{Customer, FurtherSender, OwnDomains, User, UserId};
use super::range_index::RangeIndex;
use super::ranges::AddressRanges;
use crate::envelope::claims_of;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// All customers, indexed.
#[derive(Debug, Default)]
pub struct Directory {
    customers: Vec<Arc<Customer>>,
    by_name: HashMap<Arc<str>, u32>,
    domains: HashMap<Box<str>, Holder>,
    logins: HashMap<Box<str>, LoginHolder>,
    /// Further sender addresses.
    senders: HashMap<Box<str>, Holder>,
    /// Somebody's file could not even be read for its domains, so "not registered" is not known for sure.
    incomplete: bool,
    /// Some customer has no usable configuration.
    any_unusable: bool,
    /// Somebody's messages or attachments are limited in size.
    limits_sizes: bool,
    /// Made at the first question, since few installations ask.
    ranges: OnceLock<RangeIndex>,
    /// Where an address alone lets a client in; made at the first question, too.
    ranges_without_auth: OnceLock<AddressRanges>,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Customer(u32),
    /// The customer's file is bad, and there is no good copy of it.
    Unusable,
}

#[derive(Clone, Copy, Debug)]
enum LoginHolder {
    User(u32, UserId),
    Unusable,
}

/// A registered domain and whose it is.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The registered domain itself, not the host name below it.
    pub domain: &'a str,
    pub owner: Owner<'a>,
}

/// Whose further sender address it is.
#[derive(Clone, Copy, Debug)]
pub enum Further<'a> {
    Sender {
        customer: &'a Arc<Customer>,
        user: &'a User,
        sender: &'a FurtherSender,
    },
    /// That of a customer whose file is bad.
    Unusable,
}

#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    Customer(&'a Arc<Customer>),
    /// Registered by a customer whose file is bad: no decision can be made for it now.
    Unusable,
}

impl Directory {
    pub fn customer(&self, name: &str) -> Option<&Arc<Customer>> {
        self.by_name.get(name).map(|&id| &self.customers[id as usize])
    }

    pub fn customers(&self) -> impl ExactSizeIterator<Item = &Arc<Customer>> {
        self.customers.iter()
    }

    /// Whose domain is this, or the domain that it lies below? The most specific claim wins, and none reaches across a
    /// public suffix. `domain` is in canonical form.
    pub fn owner_of_domain(&self, domain: &str) -> Option<Claim<'_>> {
        claims_of(domain).find_map(|name| {
            let (domain, holder) = self.domains.get_key_value(name)?;
            let owner = match holder {
                Holder::Customer(id) => Owner::Customer(&self.customers[*id as usize]),
                Holder::Unusable => Owner::Unusable,
            };
            Some(Claim { domain, owner })
        })
    }

    /// The customer and user that an exact `logins` entry names. `login` is in lower case.
    pub fn owner_of_login(&self, login: &str) -> Option<(&Arc<Customer>, UserId)> {
        match *self.logins.get(login)? {
            LoginHolder::User(customer, user) => Some((&self.customers[customer as usize], user)),
            LoginHolder::Unusable => None,
        }
    }

    /// Whether the login is known to be that of a customer whose file is bad: no decision can be made for it now.
    pub fn is_unusable_login(&self, login: &str) -> bool {
        matches!(self.logins.get(login), Some(LoginHolder::Unusable))
    }

    /// The customers in whose enabled ranges the address lies, at most `most` of them.
    pub fn holders_of_client(&self, client: IpAddr, most: usize) -> Vec<&Arc<Customer>> {
        let index = self.ranges.get_or_init(|| RangeIndex::new(&self.customers));
        index.holders(client, most).iter().map(|&id| &self.customers[id as usize]).collect()
    }

    /// Whether the address lies in an enabled range of an enabled setting that requires no AUTH, whoever's.
    pub fn lets_in_by_address(&self, client: IpAddr) -> bool {
        let ranges = self.ranges_without_auth.get_or_init(|| {
            let settings = self.customers.iter().flat_map(|customer| &customer.settings);
            let open = settings.filter(|setting| setting.lets_in_by_address());
            AddressRanges::new(open.flat_map(|setting| setting.enabled_ranges.iter()))
        });
        ranges.contains(client)
    }

    /// Whose further sender address this is; in canonical form.
    pub fn further_sender(&self, address: &str) -> Option<Further<'_>> {
        let id = match *self.senders.get(address)? {
            Holder::Customer(id) => id,
            Holder::Unusable => return Some(Further::Unusable),
        };
        let customer = &self.customers[id as usize];
        let user = customer.users.find(address)?;
        let sender = user.senders.iter().find(|sender| *sender.address == *address)?;
        Some(Further::Sender { customer, user, sender })
    }

    /// Whether there is a customer of whom nothing but perhaps domains, logins and further addresses is known.
    pub fn has_unusable_customers(&self) -> bool {
        self.any_unusable
    }

    /// Whether any customer's messages or attachments are limited in size, so that their content has to be seen.
    pub fn limits_sizes(&self) -> bool {
        self.limits_sizes
    }

    /// Whether a domain that is not registered here may belong to a customer whose file cannot be read.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }
}

/// Two customers claim one thing; the one that was added first keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    Name,
    Domain {
        domain: String,
        holder: Arc<str>,
    },
    Login {
        login: String,
        holder: Arc<str>,
    },
    /// A further sender address is that of a user of `holder`.
    Sender {
        address: String,
        holder: Arc<str>,
    },
    /// The address (or login with `@`) of the new customer lies in a domain of `holder`.
    AddressInForeignDomain {
        address: String,
        domain: String,
        holder: Arc<str>,
    },
    /// A domain of the new customer holds an address (or login with `@`) of `holder`.
    DomainOfForeignAddress {
        domain: String,
        address: String,
        holder: Arc<str>,
    },
}

impl Conflict {
    /// The customer that was there first; for [`Conflict::Name`] it has the same name.
    pub fn holder(&self) -> Option<&str> {
        match self {
            Conflict::Name => None,
            Conflict::Domain { holder, .. }
            | Conflict::Login { holder, .. }
            | Conflict::Sender { holder, .. }
            | Conflict::AddressInForeignDomain { holder, .. }
            | Conflict::DomainOfForeignAddress { holder, .. } => Some(holder),
        }
    }
}

/// Collects customers, the most trusted first.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    directory: Directory,
    /// Domains below which somebody registered a domain, too: there a customer may have users in another's domain.
    divided: HashMap<Box<str>, ()>,
    /// The domains of addresses and logins that lie outside their customer's own domains, and each domain above.
    outside: HashMap<Box<str>, (u32, Box<str>)>,
}

impl DirectoryBuilder {
    pub fn new() -> DirectoryBuilder {
        DirectoryBuilder::default()
    }

    /// Adds a customer, or tells every conflict with those that were added before and adds nothing.
    pub fn add(&mut self, customer: Arc<Customer>) -> Result<(), Vec<Conflict>> {
        let conflicts = self.conflicts(&customer);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let directory = &mut self.directory;
        let id = directory.customers.len() as u32;
        directory.by_name.insert(customer.name.clone(), id);
        for domain in &customer.domains {
            directory.domains.insert(domain.as_str().into(), Holder::Customer(id));
            for above in claims_of(domain.as_str()).skip(1) {
                self.divided.insert(above.into(), ());
            }
        }
        for (user_id, user) in customer.users.iter().enumerate() {
            for login in &user.logins {
                directory.logins.insert(login.clone(), LoginHolder::User(id, user_id as UserId));
            }
            for sender in &user.senders {
                directory.senders.insert(sender.address.clone(), Holder::Customer(id));
            }
        }
        for address in outside_addresses(&customer) {
            for domain in claims_of(domain_of(address)) {
                self.outside.entry(domain.into()).or_insert_with(|| (id, address.into()));
            }
        }
        directory.limits_sizes |= customer.limits.limit_sizes();
        directory.customers.push(customer);
        Ok(())
    }

    /// Marks the domains of a customer that has no usable configuration; with none known, everything unregistered is
    /// in doubt. Domains that somebody holds rightfully stay theirs.
    pub fn add_unusable<'a>(&mut self, domains: impl IntoIterator<Item = &'a str>) {
        let mut any = false;
        self.directory.any_unusable = true;
        for domain in domains {
            any = true;
            self.directory.domains.entry(domain.into()).or_insert(Holder::Unusable);
        }
        self.directory.incomplete |= !any;
    }

    /// Marks the logins of a customer that has no usable configuration.
    pub fn add_unusable_logins<'a>(&mut self, logins: impl IntoIterator<Item = &'a str>) {
        for login in logins {
            self.directory.logins.entry(login.into()).or_insert(LoginHolder::Unusable);
        }
    }

    /// Marks the further sender addresses of a customer that has no usable configuration.
    pub fn add_unusable_senders<'a>(&mut self, addresses: impl IntoIterator<Item = &'a str>) {
        for address in addresses {
            self.directory.senders.entry(address.into()).or_insert(Holder::Unusable);
        }
    }

    pub fn build(self) -> Directory {
        self.directory
    }

    fn conflicts(&self, customer: &Customer) -> Vec<Conflict> {
        let directory = &self.directory;
        let name_of = |id: u32| directory.customers[id as usize].name.clone();
        let mut conflicts = Vec::new();
        if directory.by_name.contains_key(&*customer.name) {
            conflicts.push(Conflict::Name);
        }
        for domain in &customer.domains {
            if let Some(&Holder::Customer(id)) = directory.domains.get(domain.as_str()) {
                conflicts.push(Conflict::Domain { domain: domain.to_string(), holder: name_of(id) });
            }
        }
        for user in customer.users.iter() {
            for login in &user.logins {
                if let Some(&LoginHolder::User(id, _)) = directory.logins.get(login) {
                    conflicts.push(Conflict::Login { login: login.to_string(), holder: name_of(id) });
                }
            }
            for sender in &user.senders {
                if let Some(&Holder::Customer(id)) = directory.senders.get(&sender.address) {
                    conflicts.push(Conflict::Sender { address: sender.address.to_string(), holder: name_of(id) });
                }
            }
        }
        self.find_addresses_in_foreign_domains(customer, &mut conflicts);
        self.find_foreign_addresses_in_domains(customer, &mut conflicts);
        conflicts
    }

    fn find_addresses_in_foreign_domains(&self, customer: &Customer, conflicts: &mut Vec<Conflict>) {
        let own = OwnDomains::new(&customer.domains);
        let mut check = |address: &str| {
            let nearest =
                claims_of(domain_of(address)).find_map(|name| match self.directory.domains.get_key_value(name) {
                    _ if own.contain(name) => Some(None),
                    Some((domain, &Holder::Customer(id))) => Some(Some((domain, id))),
                    _ => None,
                });
            if let Some(Some((domain, id))) = nearest {
                conflicts.push(Conflict::AddressInForeignDomain {
                    address: address.into(),
                    domain: domain.to_string(),
                    holder: self.directory.customers[id as usize].name.clone(),
                });
            }
        };
        if customer.domains.iter().any(|domain| self.divided.contains_key(domain.as_str())) {
            all_addresses(customer).for_each(&mut check);
        } else {
            outside_addresses(customer).for_each(&mut check);
        }
    }

    fn find_foreign_addresses_in_domains(&self, customer: &Customer, conflicts: &mut Vec<Conflict>) {
        for domain in &customer.domains {
            let mut found = |address: &str, holder: u32| {
                conflicts.push(Conflict::DomainOfForeignAddress {
                    domain: domain.to_string(),
                    address: address.into(),
                    holder: self.directory.customers[holder as usize].name.clone(),
                });
            };
            if let Some((id, address)) = self.outside.get(domain.as_str()) {
                found(address, *id);
            }
            let above = claims_of(domain.as_str()).skip(1).find_map(|name| match self.directory.domains.get(name) {
                Some(&Holder::Customer(id)) => Some(id),
                _ => None,
            });
            let Some(id) = above else { continue };
            let holder = &self.directory.customers[id as usize];
            let mut inside = all_addresses(holder).filter(|address| lies_in(domain_of(address), domain.as_str()));
            if let Some(address) = inside.next() {
                found(address, id);
            }
        }
    }
}

/// Addresses, aliases, further senders, and logins that look like addresses.
fn all_addresses(customer: &Customer) -> impl Iterator<Item = &str> {
    customer.users.iter().flat_map(|user| user.addresses().chain(logins_with_domain(user)))
}

/// Those of [`all_addresses`] that lie outside the customer's own domains. Users' addresses and aliases never do.
fn outside_addresses(customer: &Customer) -> impl Iterator<Item = &str> {
    let own = Rc::new(OwnDomains::new(&customer.domains));
    customer.users.iter().flat_map(move |user| {
        let own = own.clone();
        let senders = user.senders.iter().map(|sender| &*sender.address);
        senders.chain(logins_with_domain(user).filter(move |login| !own.hold(domain_of(login))))
    })
}

fn logins_with_domain(user: &super::User) -> impl Iterator<Item = &str> {
    user.logins.iter().map(|login| &**login).filter(|login| login.contains('@'))
}

fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn lies_in(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

#[cfg(test)]
mod tests;
