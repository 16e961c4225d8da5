//! One EVALSHA or EVAL: a request, or several that the same program serves.

use super::request::Request;
use super::scripts::Program;
use redis::Cmd;
use std::sync::Arc;

#[derive(Debug)]
pub(in crate::ledger::shared) struct ScriptCall<'a> {
    pub requests: &'a [&'a Arc<Request>],
    /// Between which times the server may serve them: twice six bytes.
    pub time_bounds: [u8; 12],
    /// The clock that a test sets.
    pub test_time: Option<Vec<u8>>,
}

impl ScriptCall<'_> {
    /// By the digest, which nearly every server knows.
    pub fn by_digest(&self) -> Cmd {
        self.command("EVALSHA", |program| &program.digest)
    }

    /// With the script's text, for a server that does not know the digest.
    pub fn in_full(&self) -> Cmd {
        self.command("EVAL", |program| &program.text)
    }

    fn command(&self, name: &str, text: impl Fn(&Program) -> &str) -> Cmd {
        let size: usize = self.requests.iter().map(|request| request.size() + 128).sum();
        let arguments: usize = self.requests.iter().map(|request| request.arguments.len() + 4).sum();
        let mut command = Cmd::with_capacity(arguments + 6, size + 256);
        let Some(first) = self.requests.first() else { return command };
        command.arg(name).arg(text(first.script.program));
        command.arg(self.requests.iter().map(|request| request.keys.len()).sum::<usize>());
        for request in self.requests {
            command.arg(&request.keys);
        }
        for request in self.requests {
            command.arg(&request.arguments);
        }
        if first.can_share_a_call() {
            command.arg(self.contents());
        }
        command.arg(&self.time_bounds[..]).arg(&self.test_time);
        command
    }

    /// Three bytes for each request: its opcode, how many keys it has, how many arguments.
    fn contents(&self) -> Vec<u8> {
        let mut contents = Vec::with_capacity(3 * self.requests.len());
        for request in self.requests {
            let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
            contents.push(request.script.opcode.unwrap_or_default());
            contents.extend([count(request.keys.len()), count(request.arguments.len())]);
        }
        contents
    }
}
