//! Notifies systemd (sd_notify(3)): when the sockets exist, when a reload or a stop begins, one line of status, and the
//! watchdog. Without systemd, nothing happens.

use crate::config::how_many;
use crate::control::Status;
use crate::session::Engine;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;

/// Clients can connect.
pub fn ready(engine: &Engine) {
    notify(&[NotifyState::Ready, NotifyState::Status(&serving(engine))]);
}

/// A reload has begun; [`ready`] ends it, whatever came of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(words: &str) {
    notify(&[NotifyState::Status(words)]);
}

/// As [`status`], with the usual line.
pub fn status_is_usual(engine: &Engine) {
    status(&serving(engine));
}

fn serving(engine: &Engine) -> String {
    let snapshot = engine.snapshot();
    let mut words = format!("serving {}", how_many(snapshot.directory.customers().len(), "customer"));
    if !snapshot.bad_files.is_empty() {
        words.push_str(&format!("; {} with errors", how_many(snapshot.bad_files.len(), "customer file")));
    }
    words
}

/// Notifies the watchdog twice in each of its periods, if the unit has `WatchdogSec=`. Takes all locks that decisions need
/// before, so that a deadlock ends the notifications.
pub async fn watchdog(engine: Arc<Engine>) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    loop {
        let _ = Status::of(&engine, Duration::ZERO, Vec::new());
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
}

/// Errors are ignored: systemd has its own timeouts.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
