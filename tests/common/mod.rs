//! What the tests share: an installation made of text, a fake MTA for the milter protocol, a fake smtpd for the policy
//! protocol, real Redis and Valkey servers.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod installation;
pub mod message;
pub mod mta;
pub mod redis;
pub mod rehearsal;
pub mod smtp_sink;
pub mod smtpd;

use std::future::Future;
use std::time::Duration;

/// Whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The future's output.
///
/// # Panics
/// If it hangs.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing happens"),
    }
}

/// Waits until it is so.
///
/// # Panics
/// If it never is.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
