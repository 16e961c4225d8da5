//! Hands one message to the local MTA: by sendmail(1), or by SMTP.

use crate::config::MailRoute;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// How long the MTA may take to accept a message.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much of sendmail(1)'s error output is read, in bytes.
const MAX_ERROR_OUTPUT: u64 = 2 * 1024;

/// Why the MTA did not accept a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: String,
    /// Retrying will not help.
    pub is_permanent: bool,
}

impl Failure {
    pub fn permanent(why: String) -> Failure {
        Failure { why, is_permanent: true }
    }

    fn transient(why: String) -> Failure {
        Failure { why, is_permanent: false }
    }
}

/// `hostname` is the EHLO name.
pub(super) async fn hand_over(message: &Message, route: &MailRoute, hostname: &str) -> Result<(), Failure> {
    let attempt = async {
        match route {
            MailRoute::Sendmail(program) => by_sendmail(message, program).await,
            MailRoute::Smtp(server) => by_smtp(message, server, hostname).await,
        }
    };
    match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::transient(format!("the MTA did not answer within {} s", TIMEOUT.as_secs()))),
    }
}

async fn by_smtp(message: &Message, server: &str, hostname: &str) -> Result<(), Failure> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "25"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let transport: AsyncSmtpTransport<Tokio1Executor> = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port.parse().unwrap_or(25))
        .hello_name(ClientId::Domain(hostname.to_owned()))
        .timeout(Some(TIMEOUT))
        .build();
    match transport.send_raw(message.envelope(), &message.formatted()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure { is_permanent: error.is_permanent(), why: format!("{server}: {}", chain(&error)) }),
    }
}

/// lettre's own transport can neither use the empty sender nor kill a sendmail(1) that hangs.
async fn by_sendmail(message: &Message, program: &Path) -> Result<(), Failure> {
    let failure = |why: &dyn std::fmt::Display| Failure::transient(format!("{}: {why}", program.display()));
    let mut command = Command::new(program);
    command.args(["-i", "-f", "<>", "--"]).args(message.envelope().to().iter().map(ToString::to_string));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failure(&error))?;
    let errors = converse(&mut child, unix_lines(&message.formatted())).await;
    let status = child.wait().await.map_err(|error| failure(&error))?;
    if status.success() {
        return Ok(());
    }
    let hint = if may_gain_no_privileges() {
        "; systemd's NoNewPrivileges keeps it from gaining the privileges that it may need: set mail.smtp instead"
    } else {
        ""
    };
    let why = format!("{status}: {}{hint}", errors.trim().replace('\n', "; "));
    // sysexits.h: EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_NOUSER, EX_NOHOST
    Err(Failure { is_permanent: matches!(status.code(), Some(64..=68)), ..failure(&why) })
}

/// Writes the message and returns the program's error output.
async fn converse(child: &mut Child, message: Vec<u8>) -> String {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it says why in its error output.
            let _ = stdin.write_all(&message).await;
        }
    };
    let read = async {
        let mut errors = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr).take(MAX_ERROR_OUTPUT).read_to_end(&mut errors).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&errors).into_owned()
    };
    tokio::join!(write, read).1
}

/// sendmail(1) reads lines that end in LF.
fn unix_lines(message: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(message.len());
    for (n, line) in message.split(|&byte| byte == b'\n').enumerate() {
        if n > 0 {
            lines.push(b'\n');
        }
        lines.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
    lines
}

/// With PR_SET_NO_NEW_PRIVS (prctl(2)) the set-group-ID bit of Postfix's postdrop(1) has no effect.
fn may_gain_no_privileges() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1"))
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Address;
    use crate::mail::Letter;
    use std::os::unix::fs::PermissionsExt;

    fn message() -> Message {
        let to = vec![Address::from_path("it@acme.example").unwrap()];
        let from = crate::mail::letter::From { address: "postmaster@relay.example", hostname: "relay.example" };
        Letter::new(to, "limit-warning", "80 %".into(), "one\n.\ntwo\n".into()).message(from).unwrap()
    }

    /// A program that does what `script` says.
    fn program(folder: &Path, script: &str) -> MailRoute {
        let path = folder.join("sendmail");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", folder.display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        MailRoute::Sendmail(path)
    }

    #[tokio::test]
    async fn sendmail_gets_the_message_and_the_empty_sender() {
        let folder = tempfile::tempdir().unwrap();
        let route = program(folder.path(), "echo \"$@\" > arguments; cat > message");
        hand_over(&message(), &route, "relay.example").await.unwrap();
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("arguments"), "-i -f <> -- it@acme.example\n");
        let message = read("message");
        assert!(message.ends_with("\n\none\n.\ntwo\n") && !message.contains('\r'), "{message}");
    }

    #[tokio::test]
    async fn the_error_output_of_sendmail_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let route = program(folder.path(), "echo 'no disk' >&2; head -c 100000 /dev/zero >&2; exit 75");
        let failure = hand_over(&message(), &route, "relay.example").await.unwrap_err();
        assert!(!failure.is_permanent && failure.why.contains("exit status: 75: no disk"), "{failure:?}");
        assert!(failure.why.len() < 4_000);
        let route = program(folder.path(), "exit 67");
        assert!(hand_over(&message(), &route, "relay.example").await.unwrap_err().is_permanent);
        let missing = MailRoute::Sendmail("/nonexistent/sendmail".into());
        assert!(!hand_over(&message(), &missing, "relay.example").await.unwrap_err().is_permanent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = MailRoute::Smtp(listener.local_addr().unwrap().to_string());
        let failure = hand_over(&message(), &route, "relay.example").await.unwrap_err();
        assert!(!failure.is_permanent, "{failure:?}");
    }
}
