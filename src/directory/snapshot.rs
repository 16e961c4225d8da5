//! The snapshot: who owns which domain and login. A look-up costs the same with ten customers as with 100,000.

use super::customer::{Customer, UserId};
use crate::envelope::claims_of;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// All customers, indexed.
#[derive(Debug, Default)]
pub struct Directory {
    customers: Vec<Arc<Customer>>,
    by_name: HashMap<Arc<str>, u32>,
    domains: HashMap<Box<str>, Holder>,
    logins: HashMap<Box<str>, (u32, UserId)>,
    /// Somebody's file could not even be read for its domains, so "not registered" is not known for sure.
    incomplete: bool,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    Customer(u32),
    /// The customer's file is bad, and there is no good copy of it.
    Unusable,
}

/// A registered domain and whose it is.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The registered domain itself, not the host name below it.
    pub domain: &'a str,
    pub owner: Owner<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    Customer(&'a Arc<Customer>),
    /// Registered by a customer whose file is bad: no decision can be made for it now.
    Unusable,
}

/// Two customers claim one thing; the one that was added first keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    Name,
    Domain { domain: String, holder: Arc<str> },
    Login { login: String, holder: Arc<str> },
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
        self.logins.get(login).map(|&(customer, user)| (&self.customers[customer as usize], user))
    }

    /// The customers in whose enabled ranges the address lies, at most `most` of them. Walks over all customers: for
    /// `identify_by_address` and diagnostics only.
    pub fn holders_of_client(&self, client: IpAddr, most: usize) -> Vec<&Arc<Customer>> {
        self.customers.iter().filter(|customer| customer.holds_client(client)).take(most).collect()
    }

    /// Whether a domain that is not registered here may belong to a customer whose file cannot be read.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }
}

/// Collects customers, the most trusted first.
#[derive(Debug, Default)]
pub struct DirectoryBuilder(Directory);

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
        let directory = &mut self.0;
        let id = directory.customers.len() as u32;
        directory.by_name.insert(customer.name.clone(), id);
        for domain in &customer.domains {
            directory.domains.insert(domain.as_str().into(), Holder::Customer(id));
        }
        for (user_id, user) in customer.users.iter().enumerate() {
            for login in &user.logins {
                directory.logins.insert(login.clone(), (id, user_id as UserId));
            }
        }
        directory.customers.push(customer);
        Ok(())
    }

    /// Marks the domains of a customer that has no usable configuration; with none known, everything unregistered is
    /// in doubt. Domains that somebody holds rightfully stay theirs.
    pub fn add_unusable<'a>(&mut self, domains: impl IntoIterator<Item = &'a str>) {
        let mut any = false;
        for domain in domains {
            any = true;
            self.0.domains.entry(domain.into()).or_insert(Holder::Unusable);
        }
        self.0.incomplete |= !any;
    }

    pub fn build(self) -> Directory {
        self.0
    }

    fn conflicts(&self, customer: &Customer) -> Vec<Conflict> {
        let directory = &self.0;
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
        for login in customer.users.iter().flat_map(|user| &user.logins) {
            if let Some(&(id, _)) = directory.logins.get(login) {
                conflicts.push(Conflict::Login { login: login.to_string(), holder: name_of(id) });
            }
        }
        conflicts
    }
}
