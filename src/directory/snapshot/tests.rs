use super::*;
use crate::directory::{
    AddressRanges, AllowedSenders, Billing, CustomerLimits, FurtherSender, Limit, Setting, User, Users,
};
use crate::envelope::Domain;

fn user(address: &str, logins: &[&str], senders: &[&str]) -> User {
    let sender =
        |&address: &&str| FurtherSender { address: address.into(), gateway: None, username: None, password_file: None };
    User {
        address: address.into(),
        aliases: Vec::new(),
        logins: logins.iter().map(|&login| login.into()).collect(),
        senders: senders.iter().map(sender).collect(),
    }
}

fn customer(name: &str, domains: &[&str], users: Vec<User>) -> Arc<Customer> {
    Arc::new(Customer {
        name: name.into(),
        domains: domains.iter().map(|domain| Domain::parse(domain).unwrap()).collect(),
        licenses: 1,
        billing: Billing::Paid,
        admins: Vec::new(),
        archive_to: None,
        user_gateways: false,
        outbound_gateway: None,
        limits: CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED),
        settings: Vec::new(),
        users: Users::new(users),
    })
}

/// Adds all; tells the conflicts of the last.
fn conflicts(customers: Vec<Arc<Customer>>) -> Vec<Conflict> {
    let mut builder = DirectoryBuilder::new();
    let mut last = Ok(());
    for customer in customers {
        assert_eq!(last, Ok(()), "only the last may conflict");
        last = builder.add(customer);
    }
    last.err().unwrap_or_default()
}

fn owner(directory: &Directory, domain: &str) -> Option<String> {
    directory.owner_of_domain(domain).map(|claim| match claim.owner {
        Owner::Customer(customer) => customer.name.to_string(),
        Owner::Unusable => "unusable".into(),
    })
}

#[test]
fn the_most_specific_claim_wins() {
    let mut builder = DirectoryBuilder::new();
    builder.add(customer("uni", &["uni.example"], vec![])).unwrap();
    builder.add(customer("physics", &["physics.uni.example"], vec![])).unwrap();
    let directory = builder.build();
    assert_eq!(owner(&directory, "mx.physics.uni.example").as_deref(), Some("physics"));
    assert_eq!(owner(&directory, "mx.uni.example").as_deref(), Some("uni"));
    assert_eq!(owner(&directory, "other.example"), None);
    assert_eq!(directory.owner_of_domain("a.b.uni.example").unwrap().domain, "uni.example");
}

#[test]
fn names_domains_and_logins_belong_to_one_customer() {
    let acme = || customer("acme", &["acme.example"], vec![user("kim@acme.example", &["kim"], &[])]);
    let holder: Arc<str> = "acme".into();
    assert_eq!(
        conflicts(vec![acme(), acme()]),
        [
            Conflict::Name,
            Conflict::Domain { domain: "acme.example".into(), holder: holder.clone() },
            Conflict::Login { login: "kim".into(), holder },
        ]
    );
}

#[test]
fn a_further_sender_belongs_to_one_user_and_lies_in_nobodys_domain() {
    let with_sender = |name: &str, domain: &str| {
        customer(name, &[domain], vec![user(&format!("kim@{domain}"), &[], &["kim@partner.example"])])
    };
    let holder: Arc<str> = "a".into();
    assert_eq!(
        conflicts(vec![with_sender("a", "a.example"), with_sender("b", "b.example")]),
        [Conflict::Sender { address: "kim@partner.example".into(), holder: holder.clone() }]
    );
    let partner = || customer("partner", &["partner.example"], vec![]);
    assert_eq!(
        conflicts(vec![with_sender("a", "a.example"), partner()]),
        [Conflict::DomainOfForeignAddress {
            domain: "partner.example".into(),
            address: "kim@partner.example".into(),
            holder
        }]
    );
    assert_eq!(
        conflicts(vec![partner(), with_sender("a", "a.example")]),
        [Conflict::AddressInForeignDomain {
            address: "kim@partner.example".into(),
            domain: "partner.example".into(),
            holder: "partner".into()
        }]
    );
    assert_eq!(conflicts(vec![customer("x", &["x.partner.example"], vec![]), with_sender("a", "a.example")]), []);
}

#[test]
fn nobody_takes_a_login_in_another_customers_domain() {
    let thief = || customer("thief", &["thief.example"], vec![user("t@thief.example", &["boss@victim.example"], &[])]);
    let victim = || customer("victim", &["victim.example"], vec![]);
    assert!(matches!(&conflicts(vec![victim(), thief()])[..], [Conflict::AddressInForeignDomain { .. }]));
    assert!(matches!(&conflicts(vec![thief(), victim()])[..], [Conflict::DomainOfForeignAddress { .. }]));
    let upn = customer("upn", &["upn.example"], vec![user("t@upn.example", &["t@corp.internal"], &[])]);
    assert_eq!(conflicts(vec![victim(), upn]), [], "a login may have a domain that is nobody's");
}

#[test]
fn a_user_in_a_domain_that_was_given_to_another_customer() {
    let uni = || customer("uni", &["uni.example"], vec![user("kim@physics.uni.example", &[], &[])]);
    let physics = || customer("physics", &["physics.uni.example"], vec![]);
    assert!(matches!(&conflicts(vec![uni(), physics()])[..], [Conflict::DomainOfForeignAddress { .. }]));
    assert!(matches!(&conflicts(vec![physics(), uni()])[..], [Conflict::AddressInForeignDomain { .. }]));
    assert_eq!(conflicts(vec![uni(), customer("chemistry", &["chemistry.uni.example"], vec![])]), []);
    assert_eq!(conflicts(vec![uni(), customer("other", &["xphysics.uni.example"], vec![])]), []);
}

#[test]
fn what_is_unusable_is_known_to_be_so() {
    let mut builder = DirectoryBuilder::new();
    builder.add(customer("acme", &["acme.example"], vec![user("kim@acme.example", &["kim"], &[])])).unwrap();
    builder.add_unusable(["bad.example", "acme.example"]);
    builder.add_unusable_logins(["kim", "max"]);
    let directory = builder.build();
    assert_eq!(owner(&directory, "mx.bad.example").as_deref(), Some("unusable"));
    assert_eq!(owner(&directory, "acme.example").as_deref(), Some("acme"), "the rightful holder keeps it");
    assert_eq!(directory.owner_of_login("kim").unwrap().0.name.as_ref(), "acme");
    assert!(directory.owner_of_login("max").is_none() && directory.is_unusable_login("max"));
    assert!(!directory.is_incomplete() && !directory.is_unusable_login("kim"));

    let mut builder = DirectoryBuilder::new();
    builder.add_unusable([]);
    assert!(builder.build().is_incomplete());
}

fn customer_at(name: &str, ranges: &[&str], enabled: bool) -> Arc<Customer> {
    let mut customer = Arc::into_inner(customer(name, &[&format!("{name}.example")], vec![])).unwrap();
    customer.settings.push(Setting {
        name: "office".into(),
        enabled,
        allowed_senders: AllowedSenders::Any,
        require_auth: false,
        require_tls: false,
        action: None,
        ranges: Vec::new(),
        enabled_ranges: AddressRanges::new(ranges.iter().map(|range| range.parse().unwrap())),
        shadow: false,
    });
    Arc::new(customer)
}

#[test]
fn the_holders_of_an_address_are_those_that_say_so_themselves() {
    let customers = [
        customer_at("wide", &["10.0.0.0/8", "2001:db8::/32"], true),
        customer_at("narrow", &["10.1.0.0/16", "10.1.2.0/24", "10.9.9.9/32"], true),
        customer_at("same", &["10.1.0.0/16", "2001:db8:1::/48"], true),
        customer_at("off", &["10.0.0.0/8"], false),
        customer_at("mapped", &["::ffff:192.0.2.0/120"], true),
    ];
    let mut builder = DirectoryBuilder::new();
    for customer in &customers {
        builder.add(customer.clone()).unwrap();
    }
    let directory = builder.build();
    for client in [
        "10.1.2.3",
        "10.1.3.3",
        "10.2.0.0",
        "10.9.9.9",
        "10.9.9.10",
        "9.255.255.255",
        "11.0.0.0",
        "2001:db8:1::5",
        "2001:db8:2::",
        "2001:db9::",
        "192.0.2.77",
        "::ffff:192.0.2.77",
        "::",
        "255.255.255.255",
    ] {
        let client = client.parse().unwrap();
        let sorted = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.join(" ")
        };
        let found = directory.holders_of_client(client, 9).iter().map(|customer| &*customer.name).collect();
        let expected = customers.iter().filter(|c| c.holds_client(client)).map(|customer| &*customer.name).collect();
        assert_eq!(sorted(found), sorted(expected), "{client}");
    }
    assert_eq!(directory.holders_of_client("10.1.2.3".parse().unwrap(), 2).len(), 2);
}
