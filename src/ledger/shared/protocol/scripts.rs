//! The scripts, as they are sent.

use super::request::Request;
use redis::Cmd;
use std::sync::{Arc, LazyLock};

/// What a request asks for.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Script {
    program: &'static LazyLock<Program>,
    /// Under which letter a program that answers several requests at once knows it.
    letter: Option<u8>,
}

/// A text and the digest that the server knows it by.
#[derive(Debug)]
struct Program {
    text: String,
    digest: String,
}

#[cfg(not(feature = "test-clock"))]
const CLOCK: &str = include_str!("scripts/clock.lua");
#[cfg(feature = "test-clock")]
const CLOCK: &str = include_str!("scripts/test_clock.lua");

const WINDOW: &str = include_str!("scripts/window.lua");
const RECIPIENTS: &str = include_str!("scripts/recipients.lua");
const ACCOUNTS: &str = include_str!("scripts/accounts.lua");

macro_rules! program {
    ($name:ident, $($part:expr),*) => {
        static $name: LazyLock<Program> = LazyLock::new(|| Program::new(&[CLOCK, $($part,)*]));
    };
}

program!(
    DECIDING,
    include_str!("scripts/fast_path.lua"),
    include_str!("scripts/fast_reserve.lua"),
    include_str!("scripts/fast_commit.lua"),
    "local function in_general()\n",
    WINDOW,
    RECIPIENTS,
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
program!(TELLING_USAGE, WINDOW, RECIPIENTS, ACCOUNTS, include_str!("scripts/usage.lua"));
program!(RESETTING, WINDOW, RECIPIENTS, ACCOUNTS, include_str!("scripts/reset.lua"));
program!(RANKING, WINDOW, RECIPIENTS, ACCOUNTS, include_str!("scripts/top.lua"));

pub(in crate::ledger::shared) static RESERVE: Script = Script { program: &DECIDING, letter: Some(b'r') };
pub(in crate::ledger::shared) static LOOK: Script = Script { program: &DECIDING, letter: Some(b'l') };
pub(in crate::ledger::shared) static COMMIT: Script = Script { program: &DECIDING, letter: Some(b'c') };
pub(in crate::ledger::shared) static RELEASE: Script = Script { program: &DECIDING, letter: Some(b'x') };
pub(in crate::ledger::shared) static USAGE: Script = Script { program: &TELLING_USAGE, letter: None };
pub(in crate::ledger::shared) static RESET: Script = Script { program: &RESETTING, letter: None };
pub(in crate::ledger::shared) static TOP: Script = Script { program: &RANKING, letter: None };

/// One call: a script that answers one request, or several requests that one program answers.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Call<'a> {
    pub requests: &'a [&'a Arc<Asked>],
    /// The test's clock.
    pub time: Option<Vec<u8>>,
}

/// A request, and of which script.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Asked {
    pub script: &'static Script,
    pub request: Request,
}

/// Makes a server know all of them.
pub(in crate::ledger::shared) fn load() -> impl Iterator<Item = Cmd> {
    [&DECIDING, &TELLING_USAGE, &RESETTING, &RANKING].into_iter().map(|program| {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&program.text);
        command
    })
}

impl Program {
    fn new(parts: &[&str]) -> Program {
        let text = parts.concat();
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Program { text, digest }
    }
}

impl Asked {
    /// Whether others can be asked in the same call.
    pub fn shares(&self) -> bool {
        self.script.letter.is_some()
    }

    /// How much of a call it is.
    pub fn size(&self) -> usize {
        let of = |parts: &[Vec<u8>]| parts.iter().map(Vec::len).sum::<usize>();
        of(&self.request.arguments) + self.request.keys.iter().map(String::len).sum::<usize>()
    }
}

impl Call<'_> {
    /// By its digest: what nearly every server knows.
    pub fn by_digest(&self) -> Cmd {
        self.command("EVALSHA", |program| &program.digest)
    }

    /// In full, for a server that does not know it.
    pub fn in_full(&self) -> Cmd {
        self.command("EVAL", |program| &program.text)
    }

    fn command(&self, name: &str, text: impl Fn(&Program) -> &str) -> Cmd {
        let size: usize = self.requests.iter().map(|asked| asked.size() + 128).sum();
        let arguments: usize = self.requests.iter().map(|asked| asked.request.arguments.len() + 4).sum();
        let mut command = Cmd::with_capacity(arguments + 5, size + 256);
        let Some(first) = self.requests.first() else { return command };
        command.arg(name).arg(text(first.script.program));
        command.arg(self.requests.iter().map(|asked| asked.request.keys.len()).sum::<usize>());
        for asked in self.requests {
            command.arg(&asked.request.keys);
        }
        for asked in self.requests {
            command.arg(&asked.request.arguments);
        }
        if first.shares() {
            command.arg(self.contents());
        }
        command.arg(&self.time);
        command
    }

    /// Of each request three bytes: its letter, how many keys it has, how many arguments.
    fn contents(&self) -> Vec<u8> {
        let mut contents = Vec::with_capacity(3 * self.requests.len());
        for asked in self.requests {
            let of = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
            contents.push(asked.script.letter.unwrap_or_default());
            contents.extend([of(asked.request.keys.len()), of(asked.request.arguments.len())]);
        }
        contents
    }
}
