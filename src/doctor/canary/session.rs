//! The SMTP session: EHLO, STARTTLS if offered, MAIL, RCPT, RSET, QUIT.

use super::tls;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long it may take to connect, and to answer one command.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// All of it together.
const SESSION: Duration = Duration::from_secs(60);

/// The longest reply, in bytes.
const MAX_REPLY: u64 = 64 * 1024;

/// What the canary says.
pub(super) struct Canary {
    pub helo: String,
    pub sender: String,
    pub recipient: String,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The address that it came from.
    pub source: IpAddr,
    /// The last command that was answered.
    pub stage: &'static str,
    /// The reply to it, in one line; empty: there was none.
    pub reply: String,
}

/// Holds it. A refusal ends it, and is the reply.
///
/// # Errors
/// Nobody can be connected to, in words.
pub(super) fn hold(address: SocketAddr, wraps: bool, canary: &Canary) -> Result<Session, String> {
    let stream = TcpStream::connect_timeout(&address, CONNECT).map_err(|error| format!("{address}: {error}"))?;
    let source = stream.local_addr().map_err(|error| error.to_string())?.ip();
    let _ = stream.set_read_timeout(Some(ANSWER));
    let _ = stream.set_write_timeout(Some(ANSWER));
    let mut stage = "banner";
    let reply = speak(stream, wraps, canary, &mut stage).unwrap_or_else(|error| error.to_string());
    Ok(Session { source, stage, reply })
}

fn speak(stream: TcpStream, wraps: bool, canary: &Canary, stage: &mut &'static str) -> io::Result<String> {
    let deadline = Instant::now() + SESSION;
    if wraps {
        let mut smtp = Smtp { stream: BufReader::new(tls::begin(stream)?), deadline };
        let banner = smtp.reply()?;
        if !is_good(&banner) {
            return Ok(banner);
        }
        return mail(&mut smtp, canary, stage);
    }
    let mut smtp = Smtp { stream: BufReader::new(stream), deadline };
    let banner = smtp.reply()?;
    if !is_good(&banner) {
        return Ok(banner);
    }
    *stage = "EHLO";
    let greeting = smtp.ask(&format!("EHLO {}", canary.helo))?;
    if !is_good(&greeting) {
        return Ok(greeting);
    }
    let offers_tls = greeting.to_ascii_uppercase().split(' ').any(|word| word.ends_with("STARTTLS"));
    if offers_tls && is_good(&smtp.ask("STARTTLS")?) {
        let stream = smtp.stream.into_inner();
        let mut smtp = Smtp { stream: BufReader::new(tls::begin(stream)?), deadline };
        return mail(&mut smtp, canary, stage);
    }
    transaction(&mut smtp, canary, stage)
}

fn mail<S: Read + Write>(smtp: &mut Smtp<S>, canary: &Canary, stage: &mut &'static str) -> io::Result<String> {
    *stage = "EHLO";
    let greeting = smtp.ask(&format!("EHLO {}", canary.helo))?;
    if !is_good(&greeting) {
        return Ok(greeting);
    }
    transaction(smtp, canary, stage)
}

fn transaction<S: Read + Write>(smtp: &mut Smtp<S>, canary: &Canary, stage: &mut &'static str) -> io::Result<String> {
    *stage = "MAIL";
    let reply = smtp.ask(&format!("MAIL FROM:<{}>", canary.sender))?;
    if !is_good(&reply) {
        return Ok(reply);
    }
    *stage = "RCPT";
    let reply = smtp.ask(&format!("RCPT TO:<{}>", canary.recipient))?;
    // Whatever comes of these: the reply is there.
    let _ = smtp.ask("RSET").and_then(|_| smtp.ask("QUIT"));
    Ok(reply)
}

fn is_good(reply: &str) -> bool {
    reply.starts_with('2')
}

struct Smtp<S: Read + Write> {
    stream: BufReader<S>,
    deadline: Instant,
}

impl<S: Read + Write> Smtp<S> {
    fn ask(&mut self, command: &str) -> io::Result<String> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        stream.flush()?;
        self.reply()
    }

    /// All lines of a reply as one.
    fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            if Instant::now() > self.deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut line = Vec::new();
            (&mut self.stream).take(MAX_REPLY).read_until(b'\n', &mut line)?;
            if line.is_empty() || reply.len() as u64 > MAX_REPLY {
                return Err(io::Error::other("it closed the connection"));
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            match reply.is_empty() {
                true => reply = line,
                false => {
                    reply.push(' ');
                    reply.push_str(line.get(4..).unwrap_or_default());
                }
            }
            if is_last {
                return Ok(reply);
            }
        }
    }
}
