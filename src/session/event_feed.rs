//! What SMTP clients say, as events for those who watch. Nobody pays for it while nobody watches.

use super::correlation::Server;
use crate::envelope::bounded;
use crate::policy::MtaProtocol;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Watches at once.
const MAX_WATCHES: usize = 16;

/// Events of a watch that wait to be fetched. What finds no room is lost, and counted.
const MAX_WAITING: usize = 256;

/// The longest that one watch lasts.
const MAX_TIME: Duration = Duration::from_secs(3_600);

/// Hands events to those who watch.
#[derive(Debug, Default)]
pub struct EventFeed {
    watched: AtomicUsize,
    watches: Mutex<Vec<Arc<OneWatch>>>,
}

/// Something that an MTA told of a client. No sender, no recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmtpEvent {
    /// `milter` or `policy`.
    pub protocol: String,
    /// `CONNECT`, `HELO`, `MAIL`, `RCPT`, `END-OF-MESSAGE`, and what else the policy service was asked at.
    ///
    /// A milter session's CONNECT is told with its first HELO: before that its name is not known.
    pub stage: String,
    /// The socket of ours that the MTA connected to.
    pub listener: String,
    pub client_address: Option<IpAddr>,
    /// 0 is unknown.
    pub client_port: u16,
    pub server_address: Option<IpAddr>,
    pub server_port: Option<u16>,
    pub helo: String,
    /// `policy_context`; empty without one.
    pub context: String,
}

/// Which events are of interest: those that have everything that is named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// The HELO or EHLO name, as it was said; case does not matter.
    #[serde(default)]
    pub helo: Option<String>,
}

/// Whom an event is about, as the protocols know it.
#[derive(Clone, Copy, Debug)]
pub struct SmtpMoment<'a> {
    pub protocol: MtaProtocol,
    pub stage: &'a str,
    pub listener: &'a str,
    pub client: Option<IpAddr>,
    pub client_port: u16,
    pub server: Server,
    pub helo: &'a str,
    pub context: &'a str,
}

#[derive(Debug)]
struct OneWatch {
    name: u64,
    filter: EventFilter,
    until: Instant,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<SmtpEvent>,
    lost: u64,
}

/// There are as many watches as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WATCHES} watches are running, more are not possible at once; try again when one has ended")]
pub struct TooManyWatches;

impl EventFeed {
    /// Whether anybody watches: to be asked before an event is made.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed) > 0
    }

    /// Tells those who watch for it.
    pub fn tell(&self, moment: SmtpMoment<'_>) {
        let mut watches = self.watches.lock();
        self.end_old(&mut watches);
        for watch in watches.iter().filter(|watch| watch.filter.admits(&moment)) {
            let mut waiting = watch.waiting.lock();
            if waiting.events.len() < MAX_WAITING {
                waiting.events.push(SmtpEvent::from(moment));
            } else {
                waiting.lost += 1;
            }
            drop(waiting);
            watch.arrived.notify_one();
        }
    }

    /// Begins a watch that ends after the given time, at most one hour. Returns its number, for [`EventFeed::fetch`].
    ///
    /// # Errors
    /// Too many watch.
    pub fn watch(&self, filter: EventFilter, time: Duration) -> Result<u64, TooManyWatches> {
        let mut watches = self.watches.lock();
        self.end_old(&mut watches);
        if watches.len() >= MAX_WATCHES {
            return Err(TooManyWatches);
        }
        let name = watches.iter().map(|watch| watch.name).max().unwrap_or(0) + 1;
        let until = Instant::now() + time.min(MAX_TIME);
        watches.push(Arc::new(OneWatch { name, filter, until, waiting: Mutex::default(), arrived: Notify::new() }));
        self.watched.store(watches.len(), Ordering::Relaxed);
        Ok(name)
    }

    /// What has happened since it was fetched last, and how many events were lost. Waits for the first one for up to `patience`.
    /// `None`: that watch is over.
    pub async fn fetch(&self, name: u64, patience: Duration) -> Option<(Vec<SmtpEvent>, u64)> {
        let watch = self.find(name)?;
        let deadline = watch.until.min(Instant::now() + patience);
        loop {
            let arrived = watch.arrived.notified();
            let Waiting { events, lost } = std::mem::take(&mut *watch.waiting.lock());
            let left = deadline.saturating_duration_since(Instant::now());
            if !events.is_empty() || lost > 0 || left.is_zero() {
                return Some((events, lost));
            }
            let _ = timeout(left, arrived).await;
        }
    }

    fn find(&self, name: u64) -> Option<Arc<OneWatch>> {
        let mut watches = self.watches.lock();
        self.end_old(&mut watches);
        watches.iter().find(|watch| watch.name == name).cloned()
    }

    fn end_old(&self, watches: &mut Vec<Arc<OneWatch>>) {
        let now = Instant::now();
        watches.retain(|watch| now < watch.until);
        self.watched.store(watches.len(), Ordering::Relaxed);
    }
}

impl EventFilter {
    fn admits(&self, moment: &SmtpMoment<'_>) -> bool {
        self.helo.as_ref().is_none_or(|helo| helo.eq_ignore_ascii_case(moment.helo))
    }
}

impl From<SmtpMoment<'_>> for SmtpEvent {
    fn from(moment: SmtpMoment<'_>) -> SmtpEvent {
        SmtpEvent {
            protocol: moment.protocol.key().to_owned(),
            stage: bounded(moment.stage).into(),
            listener: moment.listener.to_owned(),
            client_address: moment.client,
            client_port: moment.client_port,
            server_address: moment.server.address,
            server_port: moment.server.port,
            helo: bounded(moment.helo).into(),
            context: bounded(moment.context).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment<'a>(helo: &'a str, stage: &'a str) -> SmtpMoment<'a> {
        let (server, listener) = (Server::parse("192.0.2.25", "25"), "unix:/run/policy.sock");
        let client = Some(IpAddr::from([192, 0, 2, 7]));
        let protocol = MtaProtocol::Policy;
        SmtpMoment { protocol, stage, listener, client, client_port: 4711, server, helo, context: "relay" }
    }

    fn of(helo: &str) -> EventFilter {
        EventFilter { helo: Some(helo.to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_gets_what_it_asked_for_until_its_time_is_over() {
        let feed = EventFeed::default();
        assert!(!feed.is_watched());
        let watch = feed.watch(of("canary.acme.example"), Duration::from_secs(60)).unwrap();
        assert!(feed.is_watched());
        feed.tell(moment("other.example", "RCPT"));
        feed.tell(moment("Canary.acme.example", "RCPT"));
        let (events, lost) = feed.fetch(watch, Duration::ZERO).await.unwrap();
        assert_eq!((events.len(), lost), (1, 0));
        assert_eq!((&*events[0].stage, &*events[0].context, events[0].client_port), ("RCPT", "relay", 4711));
        assert_eq!(feed.fetch(watch, Duration::from_secs(5)).await, Some((Vec::new(), 0)));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(feed.fetch(watch, Duration::ZERO).await, None);
        assert!(!feed.is_watched());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_waits_for_the_first_event() {
        let feed = Arc::new(EventFeed::default());
        let watch = feed.watch(EventFilter::default(), Duration::from_secs(60)).unwrap();
        let fetching = tokio::spawn({
            let feed = feed.clone();
            async move { feed.fetch(watch, Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        feed.tell(moment("any.example", "RCPT"));
        assert_eq!(fetching.await.unwrap().unwrap().0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_events_or_of_watches_takes_bounded_memory() {
        let feed = EventFeed::default();
        let watch = feed.watch(EventFilter::default(), Duration::from_secs(60)).unwrap();
        for _ in 0..1_000 {
            feed.tell(moment(&"x".repeat(100_000), "RCPT"));
        }
        let (events, lost) = feed.fetch(watch, Duration::ZERO).await.unwrap();
        assert_eq!((events.len(), lost), (MAX_WAITING, 1_000 - MAX_WAITING as u64));
        assert!(events.iter().all(|event| event.helo.len() < 600));
        for _ in 1..MAX_WATCHES {
            feed.watch(EventFilter::default(), Duration::from_secs(1)).unwrap();
        }
        assert_eq!(feed.watch(EventFilter::default(), Duration::from_secs(1)), Err(TooManyWatches));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(feed.watch(EventFilter::default(), Duration::from_secs(1)).is_ok());
    }
}
