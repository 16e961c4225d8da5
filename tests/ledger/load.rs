//! Messages that several daemons send at once, and the books about them.

use crate::stores::RESERVATION_TIMEOUT;
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// They lie in slots of all three masters of a cluster.
pub const CUSTOMERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Sessions of several daemons, each sending messages to one new recipient each until they are stopped.
pub struct Load {
    books: Arc<Books>,
    sessions: JoinSet<()>,
}

#[derive(Default)]
struct Books {
    is_over: AtomicBool,
    /// Messages are told apart by whether they were begun before or after [`Load::mark`].
    is_marked: AtomicBool,
    accepted: [[AtomicU64; 2]; CUSTOMERS.len()],
    /// Nobody knows whether they are counted.
    unsure: [AtomicU64; CUSTOMERS.len()],
    refused: AtomicU64,
    sessions: AtomicUsize,
}

/// What became of a customer's messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Begun before the mark.
    pub before: u64,
    pub after: u64,
    pub unsure: u64,
}

impl Load {
    /// `max`: of each customer's recipients in a day.
    pub fn start(daemons: &[Ledger], sessions: usize, customers: usize, max: Option<u64>) -> Load {
        let mut load = Load { books: Arc::default(), sessions: JoinSet::new() };
        for daemon in daemons {
            for _ in 0..sessions {
                load.sessions.spawn(send(daemon.clone(), load.books.clone(), customers, max));
            }
        }
        load
    }

    /// Of each customer.
    pub fn sent(&self) -> [Sent; CUSTOMERS.len()] {
        let of = |customer: usize| {
            let [before, after] = &self.books.accepted[customer];
            Sent {
                before: before.load(SeqCst),
                after: after.load(SeqCst),
                unsure: self.books.unsure[customer].load(SeqCst),
            }
        };
        std::array::from_fn(of)
    }

    pub fn mark(&self) {
        self.books.is_marked.store(true, SeqCst);
    }

    /// Waits until this is so of every customer. How long that took.
    pub async fn until(&self, what: &str, is_so: impl Fn(Sent) -> bool, customers: usize) -> Duration {
        let began = Instant::now();
        while !self.sent()[..customers].iter().all(|sent| is_so(*sent)) {
            assert!(began.elapsed() < PATIENCE, "never: {what}: {:?}", self.sent());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    pub async fn until_refused(&self) {
        let began = Instant::now();
        while self.books.refused.load(SeqCst) == 0 {
            assert!(began.elapsed() < PATIENCE, "never refused: {:?}", self.sent());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the sessions end what they have begun.
    pub async fn stop(mut self) -> [Sent; CUSTOMERS.len()] {
        self.books.is_over.store(true, SeqCst);
        while let Some(ended) = self.sessions.join_next().await {
            ended.expect("no session fails");
        }
        self.sent()
    }
}

async fn send(daemon: Ledger, books: Arc<Books>, customers: usize, max: Option<u64>) {
    let session = books.sessions.fetch_add(1, SeqCst);
    let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match (name, max) {
        (LimitName::CustomerDay, Some(max)) => Limit::of(max),
        _ => Limit::UNLIMITED,
    });
    for n in 0u64.. {
        if books.is_over.load(SeqCst) {
            return;
        }
        let customer = (session + n as usize) % customers;
        let is_marked = usize::from(books.is_marked.load(SeqCst));
        let recipient = daemon.recipient_key(&format!("{session}.{n}.{}@dest.example", std::process::id()));
        let (id, parties) = (daemon.new_reservation(), parties(CUSTOMERS[customer]));
        match daemon.reserve(id, &parties, &limits, recipient).await {
            Ok(answer) if answer.fits() => {}
            Ok(_) => {
                books.refused.fetch_add(1, SeqCst);
                continue;
            }
            Err(_) => {
                // The MTA's client comes again later.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        match daemon.commit(id, &parties, &limits, AcceptedRecipients { named: &[recipient], unnamed: 0 }).await {
            Ok(answer) if answer.fits() => books.accepted[customer][is_marked].fetch_add(1, SeqCst),
            Ok(_) => books.refused.fetch_add(1, SeqCst),
            Err(_) => books.unsure[customer].fetch_add(1, SeqCst),
        };
    }
}

fn parties(customer: &str) -> Parties {
    Parties { customer: customer.into(), user: Some("ann".into()), login: None }
}

/// A daemon.
pub fn daemon(urls: &[String]) -> Ledger {
    Ledger::open_shared(urls, OnOutage::Defer, RESERVATION_TIMEOUT).expect("the URLs can be read")
}

/// Messages of a customer, as a daemon sees them when nobody sends.
///
/// # Panics
/// If a message is counted in part.
pub async fn counted(daemon: &Ledger, customer: &str) -> u64 {
    let recipients = recipients_counted(daemon, customer).await;
    let of_user = used(daemon, SubjectKind::User, customer, "ann").await;
    assert_eq!(of_user, [recipients; 2], "{customer}: a message is counted whole, or not at all");
    recipients
}

pub async fn recipients_counted(daemon: &Ledger, customer: &str) -> u64 {
    used(daemon, SubjectKind::Customer, customer, customer).await[0]
}

/// Retries while the servers are unreachable.
async fn used(daemon: &Ledger, kind: SubjectKind, customer: &str, name: &str) -> [u64; 2] {
    let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
    let subject = Subject { kind, customer: customer.into(), name: name.into() };
    let began = Instant::now();
    loop {
        match daemon.usage(&subject, &unlimited).await {
            Ok(usage) => return [usage[0].used, usage[1].used],
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
