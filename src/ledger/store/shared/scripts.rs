//! The scripts, as they are sent.

use redis::Cmd;
use std::sync::LazyLock;

/// A script and the digest that the server knows it by.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    digest: String,
}

/// Whether the test's clock is told to the server.
pub(super) const TELLS_TIME: bool = cfg!(feature = "test-clock");

#[cfg(not(feature = "test-clock"))]
const CLOCK: &str = include_str!("scripts/clock.lua");
#[cfg(feature = "test-clock")]
const CLOCK: &str = include_str!("scripts/clock_of_tests.lua");

const USUAL: &str = include_str!("scripts/usual.lua");
const USUAL_RESERVE: &str = include_str!("scripts/usual_reserve.lua");
const USUAL_COMMIT: &str = include_str!("scripts/usual_commit.lua");
const WINDOW: &str = include_str!("scripts/window.lua");
const ACCOUNTS: &str = include_str!("scripts/accounts.lua");
const RECIPIENTS: &str = include_str!("scripts/recipients.lua");
const DECIDE: &str = include_str!("scripts/decide.lua");
const HOLD: &str = include_str!("scripts/hold.lua");

macro_rules! script {
    ($name:ident, $file:literal, $($part:expr),*) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[CLOCK, $($part,)* include_str!($file)]));
    };
}

script!(RESERVE, "scripts/reserve.lua", USUAL, USUAL_RESERVE, WINDOW, ACCOUNTS, RECIPIENTS, DECIDE, HOLD);
script!(LOOK, "scripts/look.lua", WINDOW, ACCOUNTS, RECIPIENTS, DECIDE);
script!(COMMIT, "scripts/commit.lua", USUAL, USUAL_COMMIT, WINDOW, ACCOUNTS, RECIPIENTS, DECIDE, HOLD);
script!(RELEASE, "scripts/release.lua", WINDOW, ACCOUNTS, RECIPIENTS, DECIDE, HOLD);
script!(USAGE, "scripts/usage.lua", WINDOW, ACCOUNTS);
script!(RESET, "scripts/reset.lua", WINDOW, ACCOUNTS);
script!(TOP, "scripts/top.lua", WINDOW);

/// All of them.
pub(super) fn all() -> [&'static Script; 7] {
    [&RESERVE, &LOOK, &COMMIT, &RELEASE, &USAGE, &RESET, &TOP]
}

impl Script {
    fn new(parts: &[&str]) -> Script {
        let text = parts.concat();
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Script { text, digest }
    }

    /// Makes a server know it.
    pub fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }

    /// By its digest: what nearly every server knows.
    pub fn by_digest(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        command("EVALSHA", self.digest.as_bytes(), keys, arguments)
    }

    /// In full, for a server that does not know it.
    pub fn in_full(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        command("EVAL", self.text.as_bytes(), keys, arguments)
    }
}

fn command(name: &str, script: &[u8], keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
    command
}
