//! The Lua scripts, as they are sent.

use redis::Cmd;
use std::sync::LazyLock;

/// What serves a request.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Script {
    pub program: &'static LazyLock<Program>,
    /// How a program that serves several requests in one call tells them apart. `None`: it serves one.
    pub opcode: Option<u8>,
}

/// A text, and the digest that servers know it by.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Program {
    pub text: String,
    pub digest: String,
}

#[cfg(not(feature = "test-clock"))]
const CLOCK: &str = include_str!("scripts/clock.lua");
#[cfg(feature = "test-clock")]
const CLOCK: &str = include_str!("scripts/test_clock.lua");

const CLOCK_CHECK: &str = include_str!("scripts/clock_check.lua");
const WINDOW: &str = include_str!("scripts/window.lua");
const RECIPIENTS: &str = include_str!("scripts/recipients.lua");
const MOVE: &str = include_str!("scripts/move.lua");
const ACCOUNTS: &str = include_str!("scripts/accounts.lua");

macro_rules! program {
    ($name:ident, $($source:expr),*) => {
        static $name: LazyLock<Program> = LazyLock::new(|| Program::new(&[CLOCK, CLOCK_CHECK, $($source,)*]));
    };
}

program!(
    TRANSACTIONS,
    include_str!("scripts/fast_path.lua"),
    include_str!("scripts/fast_reserve.lua"),
    include_str!("scripts/fast_commit.lua"),
    "local function slow_path()\n",
    WINDOW,
    RECIPIENTS,
    MOVE,
    ACCOUNTS,
    include_str!("scripts/decide.lua"),
    include_str!("scripts/reservations.lua"),
    include_str!("scripts/reserve.lua"),
    include_str!("scripts/look.lua"),
    include_str!("scripts/commit.lua"),
    include_str!("scripts/release.lua"),
    "return { [114] = reserve, [108] = look, [99] = commit, [120] = release_all }\nend\n",
    include_str!("scripts/dispatch.lua")
);
program!(SHOW_USAGE, WINDOW, RECIPIENTS, MOVE, ACCOUNTS, include_str!("scripts/usage.lua"));
program!(RESET_USAGE, WINDOW, RECIPIENTS, MOVE, ACCOUNTS, include_str!("scripts/reset.lua"));
program!(REBASE_ACCOUNT, WINDOW, RECIPIENTS, MOVE, ACCOUNTS, include_str!("scripts/rebase.lua"));
program!(RANK_USAGE, WINDOW, RECIPIENTS, MOVE, ACCOUNTS, include_str!("scripts/top.lua"));

pub(super) static RESERVE: Script = Script { program: &TRANSACTIONS, opcode: Some(b'r') };
pub(super) static LOOK: Script = Script { program: &TRANSACTIONS, opcode: Some(b'l') };
pub(super) static COMMIT: Script = Script { program: &TRANSACTIONS, opcode: Some(b'c') };
pub(super) static RELEASE: Script = Script { program: &TRANSACTIONS, opcode: Some(b'x') };
pub(super) static USAGE: Script = Script { program: &SHOW_USAGE, opcode: None };
pub(super) static RESET: Script = Script { program: &RESET_USAGE, opcode: None };
pub(super) static REBASE: Script = Script { program: &REBASE_ACCOUNT, opcode: None };
pub(super) static TOP: Script = Script { program: &RANK_USAGE, opcode: None };

/// Loads all of them into a server.
pub(in crate::ledger::shared) fn load() -> impl Iterator<Item = Cmd> {
    [&TRANSACTIONS, &SHOW_USAGE, &RESET_USAGE, &RANK_USAGE].into_iter().map(|program| {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&program.text);
        command
    })
}

impl Program {
    fn new(sources: &[&str]) -> Program {
        let text = sources.concat();
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Program { text, digest }
    }
}
