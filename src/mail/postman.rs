//! Hands letters to the MTA, one after the other, and retries for a while.

use super::Letter;
use super::hand_over::{Failure, hand_over};
use super::letter::From;
use super::outbox::Outbox;
use super::own_mail::OwnMail;
use crate::config::Settings;
use crate::report::{Level, LogLine, Logger};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// How long a letter is retried before it is given up.
const RETRY_FOR: Duration = Duration::from_secs(4 * 3_600);

/// Letters that wait for their next attempt; beyond that, new ones stay in the outbox.
const MAX_PENDING: usize = 256;

/// Sends letters for as long as the daemon runs.
#[derive(Debug)]
pub struct Postman {
    letters: mpsc::Receiver<Letter>,
    pending: Vec<Pending>,
    own_mail: Arc<OwnMail>,
}

#[derive(Debug)]
struct Pending {
    letter: Letter,
    since: Instant,
    next: Instant,
    pause: Duration,
}

/// One attempt to send a letter.
trait Transport: Sync {
    fn send(&self, letter: &Letter) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Sends by the route of the current settings.
struct ConfiguredRoute<S>(S);

impl<S: Fn() -> Arc<Settings> + Sync> Transport for ConfiguredRoute<S> {
    async fn send(&self, letter: &Letter) -> Result<(), Failure> {
        let settings = (self.0)();
        let relay = &settings.relay.hostname;
        let address = settings.mail.sender(relay);
        let message = letter.message(From { address: &address, hostname: relay }).map_err(Failure::permanent)?;
        hand_over(&message, &settings.mail.route, relay).await
    }
}

impl Postman {
    /// A postman and its outbox. `own_mail` learns what is sent.
    pub fn new(own_mail: Arc<OwnMail>) -> (Outbox, Postman) {
        let (outbox, letters) = Outbox::new();
        (outbox, Postman { letters, pending: Vec::new(), own_mail })
    }

    /// Runs until the outbox is dropped. `settings` gives the current settings.
    pub async fn run(&mut self, settings: impl Fn() -> Arc<Settings> + Send + Sync, log: &Logger) {
        self.run_with(log, &ConfiguredRoute(settings)).await;
    }

    async fn run_with(&mut self, log: &Logger, transport: &impl Transport) {
        loop {
            let next = self.pending.iter().map(|pending| pending.next).min();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due => self.send_due(log, transport).await,
                letter = self.letters.recv(), if self.pending.len() < MAX_PENDING => {
                    let Some(letter) = letter else { return };
                    let now = Instant::now();
                    self.pending.push(Pending { letter, since: now, next: now, pause: FIRST_PAUSE });
                }
            }
        }
    }

    async fn send_due(&mut self, log: &Logger, transport: &impl Transport) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.next <= now);
        self.pending = later;
        let due: Vec<Pending> = due;
        for mut pending in due {
            self.own_mail.note_handed_over(&pending.letter.to);
            match transport.send(&pending.letter).await {
                Ok(()) => self.sent(pending, log),
                // One bad address must not keep the letter from the other recipients.
                Err(failure) if failure.is_permanent && pending.letter.to.len() > 1 => self.split(pending),
                Err(failure) if failure.is_permanent || pending.since.elapsed() >= RETRY_FOR => {
                    give_up(&pending, &failure, log);
                }
                Err(failure) => {
                    self.report_failure(&failure, log);
                    pending.next = Instant::now() + pending.pause;
                    pending.pause = (pending.pause * 2).min(LONGEST_PAUSE);
                    self.pending.push(pending);
                }
            }
        }
    }

    fn sent(&mut self, pending: Pending, log: &Logger) {
        let Letter { to, about, when_sent, .. } = pending.letter;
        if self.own_mail.succeeded() {
            log.info("own mail is sent again");
        }
        log.write(Level::Info, LogLine::event("mail-sent").field("about", about).field("recipients", to.len()));
        if let Some(when_sent) = when_sent {
            when_sent();
        }
    }

    fn split(&mut self, pending: Pending) {
        let Pending { letter: Letter { to, subject, text, about, mut when_sent }, since, .. } = pending;
        let now = Instant::now();
        for recipient in to {
            let (subject, text) = (subject.clone(), text.clone());
            let letter = Letter { to: vec![recipient], subject, text, about, when_sent: when_sent.take() };
            self.pending.push(Pending { letter, since, next: now, pause: FIRST_PAUSE });
        }
    }

    /// The first failure in a row only.
    fn report_failure(&self, failure: &Failure, log: &Logger) {
        if self.own_mail.failed(&failure.why) {
            let hours = RETRY_FOR.as_secs() / 3_600;
            let why = &failure.why;
            log.warn(format_args!("own mail cannot be sent and will be retried for {hours} hours: {why}"));
        }
    }
}

fn give_up(pending: &Pending, failure: &Failure, log: &Logger) {
    let line = LogLine::event("mail-given-up")
        .field("about", pending.letter.about)
        .field("to", pending.letter.to.first().map(ToString::to_string).unwrap_or_default())
        .field("why", &failure.why);
    log.write(Level::Error, line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Address;
    use crate::report::sink::memory::{Memory, MemoryLines};
    use parking_lot::Mutex;

    fn letter(to: &[&str]) -> Letter {
        let to = to.iter().map(|address| Address::from_path(address).unwrap()).collect();
        Letter::new(to, "limit-warning", "80 %".into(), "words".into())
    }

    fn log() -> (Logger, MemoryLines) {
        let (sink, lines) = Memory::new();
        (Logger::start(Level::Debug, Box::new(sink)).unwrap(), lines)
    }

    fn lines(log: &Logger, lines: &MemoryLines) -> Vec<String> {
        assert!(log.flush(Duration::from_secs(30)));
        lines.all().into_iter().map(|(_, line)| line).collect()
    }

    /// Runs until no letter is left. Returns each attempt with its second, and the problem that remains.
    async fn run(
        letters: Vec<Letter>,
        log: &Logger,
        outcome: impl Fn(&str, u64) -> Result<(), Failure> + Sync,
    ) -> (Vec<(String, u64)>, Option<String>) {
        let own_mail = Arc::<OwnMail>::default();
        let (outbox, mut postman) = Postman::new(own_mail.clone());
        for letter in letters {
            outbox.post(letter, log);
        }
        let transport = Scripted { outcome, start: Instant::now(), attempts: Mutex::default() };
        let run = postman.run_with(log, &transport);
        // Time is paused: it passes as soon as nothing else is to be done.
        let _ = tokio::time::timeout(2 * RETRY_FOR, run).await;
        assert!(postman.pending.is_empty());
        (transport.attempts.into_inner(), own_mail.problem())
    }

    struct Scripted<O> {
        outcome: O,
        start: Instant,
        attempts: Mutex<Vec<(String, u64)>>,
    }

    impl<O: Fn(&str, u64) -> Result<(), Failure> + Sync> Transport for Scripted<O> {
        async fn send(&self, letter: &Letter) -> Result<(), Failure> {
            let to = letter.to.iter().map(Address::as_str).collect::<Vec<_>>().join(",");
            let at = self.start.elapsed().as_secs();
            self.attempts.lock().push((to.clone(), at));
            (self.outcome)(&to, at)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_retried_and_the_failure_reported_once() {
        let (log, written) = log();
        let sent = Arc::new(Mutex::new(0));
        let counting = sent.clone();
        let letters = vec![letter(&["a@x.example"]).then(move || *counting.lock() += 1), letter(&["b@x.example"])];
        let (attempts, problem) = run(letters, &log, |_, at| match at {
            ..200 => Err(Failure { why: "no server".into(), is_permanent: false }),
            _ => Ok(()),
        })
        .await;
        let of = |name: &str| attempts.iter().filter(|(to, _)| to == name).map(|(_, at)| *at).collect::<Vec<_>>();
        assert_eq!(of("a@x.example"), [0, 30, 90, 210]);
        assert_eq!(of("b@x.example"), [0, 30, 90, 210]);
        assert_eq!((*sent.lock(), problem), (1, None));
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("no server")).count(), 1, "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("own mail is sent again")).count(), 1, "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_after_four_hours() {
        let (log, written) = log();
        let down = |_: &str, _| Err(Failure { why: "no server".into(), is_permanent: false });
        let (attempts, problem) = run(vec![letter(&["a@x.example"])], &log, down).await;
        assert_eq!(problem.as_deref(), Some("no server"));
        let last = attempts.last().unwrap().1;
        assert!((RETRY_FOR.as_secs()..RETRY_FOR.as_secs() + 900).contains(&last), "{attempts:?}");
        let lines = lines(&log, &written);
        assert!(lines.iter().any(|line| line.contains("event=mail-given-up")), "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_address_does_not_keep_the_others_from_it() {
        let (log, written) = log();
        let (attempts, problem) =
            run(vec![letter(&["bad@x.example", "b@x.example"])], &log, |to, _| match to.contains("bad@") {
                true => Err(Failure::permanent("550 no such user".into())),
                false => Ok(()),
            })
            .await;
        assert_eq!(problem, None, "nothing is wrong with the MTA");
        let tried: Vec<&str> = attempts.iter().map(|(to, _)| &**to).collect();
        assert_eq!(tried, ["bad@x.example,b@x.example", "bad@x.example", "b@x.example"]);
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("event=mail-sent")).count(), 1, "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_outbox_is_bounded_and_says_so_once() {
        let (log, written) = log();
        let (outbox, _postman) = Postman::new(Arc::default());
        (0..1_000).for_each(|_| outbox.post(letter(&["a@x.example"]), &log));
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("event=mail-dropped")).count(), 1, "{lines:#?}");
    }
}
