//! Brings letters to the MTA, one after the other, and tries again for a while.

use super::Letter;
use super::hand_over::{Failure, hand_over};
use super::letter::From;
use super::outbox::{OnItsWay, Outbox, Trouble};
use crate::config::Settings;
use crate::report::{Level, LogLine, Logger};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// A letter that the MTA does not take for so long is given up.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);

/// Letters that wait for another attempt; while there are so many, further ones wait in the outbox.
const MAX_PENDING: usize = 256;

/// Brings letters to the MTA for as long as the daemon runs.
#[derive(Debug)]
pub struct Postman {
    letters: mpsc::Receiver<Letter>,
    on_its_way: Arc<OnItsWay>,
    pending: Vec<Pending>,
    trouble: Arc<Trouble>,
}

#[derive(Debug)]
struct Pending {
    letter: Letter,
    since: Instant,
    next: Instant,
    pause: Duration,
}

/// Where letters are brought.
trait Way: Sync {
    fn bring(&self, letter: &Letter) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// By the settings in force.
struct ToTheMta<S>(S);

impl<S: Fn() -> Arc<Settings> + Sync> Way for ToTheMta<S> {
    async fn bring(&self, letter: &Letter) -> Result<(), Failure> {
        let settings = (self.0)();
        let relay = &settings.relay.hostname;
        let address = settings.mail.sender(relay);
        let message = letter.message(From { address: &address, hostname: relay }).map_err(Failure::permanent)?;
        hand_over(&message, &settings.mail.route, relay).await
    }
}

impl Postman {
    /// A postman, and the outbox that he empties.
    pub fn new() -> (Outbox, Postman) {
        let (outbox, letters, on_its_way, trouble) = Outbox::new();
        (outbox, Postman { letters, on_its_way, pending: Vec::new(), trouble })
    }

    /// Works until the outbox is gone. `settings` are those in force.
    pub async fn work(&mut self, settings: impl Fn() -> Arc<Settings> + Send + Sync, log: &Logger) {
        self.work_with(log, &ToTheMta(settings)).await;
    }

    async fn work_with(&mut self, log: &Logger, way: &impl Way) {
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
                () = due => self.bring_what_is_due(log, way).await,
                letter = self.letters.recv(), if self.pending.len() < MAX_PENDING => {
                    let Some(letter) = letter else { return };
                    let now = Instant::now();
                    self.pending.push(Pending { letter, since: now, next: now, pause: FIRST_PAUSE });
                }
            }
        }
    }

    async fn bring_what_is_due(&mut self, log: &Logger, way: &impl Way) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.next <= now);
        self.pending = later;
        let due: Vec<Pending> = due;
        for mut pending in due {
            self.on_its_way.remember(&pending.letter.to);
            match way.bring(&pending.letter).await {
                Ok(()) => self.brought(pending, log),
                // One bad address must not keep the others from it.
                Err(failure) if failure.is_permanent && pending.letter.to.len() > 1 => self.divide(pending),
                Err(failure) if failure.is_permanent || pending.since.elapsed() >= PATIENCE => {
                    given_up(&pending, &failure, log);
                }
                Err(failure) => {
                    self.tell_trouble(&failure, log);
                    pending.next = Instant::now() + pending.pause;
                    pending.pause = (pending.pause * 2).min(LONGEST_PAUSE);
                    self.pending.push(pending);
                }
            }
        }
    }

    fn brought(&mut self, pending: Pending, log: &Logger) {
        let Letter { to, about, when_sent, .. } = pending.letter;
        if self.trouble.ends() {
            log.info("own mail is sent again");
        }
        log.write(Level::Info, LogLine::event("mail-sent").field("about", about).field("recipients", to.len()));
        if let Some(when_sent) = when_sent {
            when_sent();
        }
    }

    fn divide(&mut self, pending: Pending) {
        let Pending { letter: Letter { to, subject, text, about, mut when_sent }, since, .. } = pending;
        let now = Instant::now();
        for recipient in to {
            let (subject, text) = (subject.clone(), text.clone());
            let letter = Letter { to: vec![recipient], subject, text, about, when_sent: when_sent.take() };
            self.pending.push(Pending { letter, since, next: now, pause: FIRST_PAUSE });
        }
    }

    /// Once, until it works again.
    fn tell_trouble(&self, failure: &Failure, log: &Logger) {
        if self.trouble.begins(&failure.why) {
            let hours = PATIENCE.as_secs() / 3_600;
            let why = &failure.why;
            log.warn(format_args!("own mail cannot be sent, and is tried again for {hours} hours: {why}"));
        }
    }
}

fn given_up(pending: &Pending, failure: &Failure, log: &Logger) {
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
        let to = to.iter().map(|address| Address::parse(address).unwrap()).collect();
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

    /// All letters are in the outbox; works until they are gone, and tells each attempt and when it was, and what trouble
    /// there is in the end.
    async fn work(
        letters: Vec<Letter>,
        log: &Logger,
        outcome: impl Fn(&str, u64) -> Result<(), Failure> + Sync,
    ) -> (Vec<(String, u64)>, Option<String>) {
        let (outbox, mut postman) = Postman::new();
        for letter in letters {
            outbox.post(letter, log);
        }
        let way = Played { outcome, start: Instant::now(), attempts: Mutex::default() };
        let work = postman.work_with(log, &way);
        // Time is paused: it passes as soon as nothing else is to be done.
        let _ = tokio::time::timeout(2 * PATIENCE, work).await;
        assert!(postman.pending.is_empty());
        (way.attempts.into_inner(), outbox.trouble())
    }

    struct Played<O> {
        outcome: O,
        start: Instant,
        attempts: Mutex<Vec<(String, u64)>>,
    }

    impl<O: Fn(&str, u64) -> Result<(), Failure> + Sync> Way for Played<O> {
        async fn bring(&self, letter: &Letter) -> Result<(), Failure> {
            let to = letter.to.iter().map(Address::as_str).collect::<Vec<_>>().join(",");
            let at = self.start.elapsed().as_secs();
            self.attempts.lock().push((to.clone(), at));
            (self.outcome)(&to, at)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_again_and_the_trouble_told_once() {
        let (log, written) = log();
        let sent = Arc::new(Mutex::new(0));
        let counting = sent.clone();
        let letters = vec![letter(&["a@x.example"]).then(move || *counting.lock() += 1), letter(&["b@x.example"])];
        let (attempts, trouble) = work(letters, &log, |_, at| match at {
            ..200 => Err(Failure { why: "no server".into(), is_permanent: false }),
            _ => Ok(()),
        })
        .await;
        let of = |name: &str| attempts.iter().filter(|(to, _)| to == name).map(|(_, at)| *at).collect::<Vec<_>>();
        assert_eq!(of("a@x.example"), [0, 30, 90, 210]);
        assert_eq!(of("b@x.example"), [0, 30, 90, 210]);
        assert_eq!((*sent.lock(), trouble), (1, None));
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("no server")).count(), 1, "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("own mail is sent again")).count(), 1, "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_after_a_while() {
        let (log, written) = log();
        let down = |_: &str, _| Err(Failure { why: "no server".into(), is_permanent: false });
        let (attempts, trouble) = work(vec![letter(&["a@x.example"])], &log, down).await;
        assert_eq!(trouble.as_deref(), Some("no server"));
        let last = attempts.last().unwrap().1;
        assert!((PATIENCE.as_secs()..PATIENCE.as_secs() + 900).contains(&last), "{attempts:?}");
        let lines = lines(&log, &written);
        assert!(lines.iter().any(|line| line.contains("event=mail-given-up")), "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_address_does_not_keep_the_others_from_it() {
        let (log, written) = log();
        let (attempts, trouble) =
            work(vec![letter(&["bad@x.example", "b@x.example"])], &log, |to, _| match to.contains("bad@") {
                true => Err(Failure::permanent("550 no such user".into())),
                false => Ok(()),
            })
            .await;
        assert_eq!(trouble, None, "nothing is wrong with the MTA");
        let tried: Vec<&str> = attempts.iter().map(|(to, _)| &**to).collect();
        assert_eq!(tried, ["bad@x.example,b@x.example", "bad@x.example", "b@x.example"]);
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("event=mail-sent")).count(), 1, "{lines:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_outbox_is_bounded_and_says_so_once() {
        let (log, written) = log();
        let (outbox, _postman) = Postman::new();
        (0..1_000).for_each(|_| outbox.post(letter(&["a@x.example"]), &log));
        let lines = lines(&log, &written);
        assert_eq!(lines.iter().filter(|line| line.contains("event=mail-dropped")).count(), 1, "{lines:#?}");
    }
}
