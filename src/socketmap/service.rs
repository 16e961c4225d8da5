//! From a connection's bytes to answers.

use super::answer::Answer;
use super::maps::{Found, LoginAt, look_up};
use super::netstring::{BadRequest, MAX_FRAME, first};
use crate::listen::Peer;
use crate::report::OncePer;
use crate::session::{Engine, OpenCount};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

/// Postfix closes a connection after 10 s idle, and anew every 100 s (dict_socketmap.c).
const IDLE: Duration = Duration::from_secs(300);

/// How long a request may take from its first byte to its last.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long Postfix may take to read an answer that it waits for.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection that waits for its next request keeps no more than this.
const IDLE_BUFFER: usize = 512;

/// The socketmap server, whatever socket it is on.
pub struct SocketmapService {
    engine: Arc<Engine>,
    garbage: OncePer<Peer>,
    unreadable: OncePer<Box<str>>,
    answering: OpenCount,
}

impl SocketmapService {
    pub fn new(engine: Arc<Engine>) -> Arc<SocketmapService> {
        let minute = Duration::from_secs(60);
        Arc::new(SocketmapService {
            engine,
            garbage: OncePer::new(minute, 1_024),
            unreadable: OncePer::new(minute, 1_024),
            answering: OpenCount::default(),
        })
    }

    /// Answers one connection until it is closed. What is no request gets no answer, and the connection is closed.
    /// Passwords are told to processes of this machine only.
    pub async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        if let Err(trouble) = self.converse(&mut stream, peer).await
            && let Some(suppressed) = self.garbage.check(peer, std::time::Instant::now())
        {
            let more = if suppressed > 0 { format!(" ({suppressed} more like it)") } else { String::new() };
            self.engine.log.warn(format_args!("dropped a socketmap connection from {peer}: {trouble}{more}"));
        }
    }

    /// At the end of the daemon: waits for answers under way.
    pub async fn finish(&self) {
        self.answering.none().await;
    }

    async fn converse(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), peer: Peer) -> Result<(), BadRequest> {
        let mut buffer = Vec::with_capacity(IDLE_BUFFER);
        // When the request began that is not complete yet.
        let mut begun = None;
        loop {
            // One at a time: whoever sends many at once and reads no answer is not read from any further.
            while let Some(bytes) = first(&buffer)? {
                let answering = self.answering.enter();
                let end = bytes.end + 1;
                let mut out = Zeroizing::new(Vec::with_capacity(IDLE_BUFFER));
                self.answer(&buffer[bytes], peer).await?.write(&mut out);
                match timeout(ANSWER_TIME, stream.write_all(&out)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(BadRequest::NotTaken),
                }
                drop(answering);
                buffer.drain(..end);
                begun = None;
            }
            let is_idle = buffer.is_empty();
            let deadline = if is_idle {
                buffer.shrink_to(IDLE_BUFFER);
                Instant::now() + IDLE
            } else {
                *begun.get_or_insert_with(Instant::now) + REQUEST_TIME
            };
            // What is no netstring was refused above, so that there is room for the rest of one.
            let mut part = [0; IDLE_BUFFER];
            let room = part.len().min(MAX_FRAME - buffer.len());
            match timeout_at(deadline, stream.read(&mut part[..room])).await {
                Ok(Ok(0)) | Ok(Err(_)) | Err(_) if is_idle => return Ok(()),
                Ok(Ok(0)) | Ok(Err(_)) => return Err(BadRequest::CutOff),
                Err(_) => return Err(BadRequest::TooSlow),
                Ok(Ok(length)) => buffer.extend_from_slice(&part[..length]),
            }
        }
    }

    async fn answer(&self, request: &[u8], peer: Peer) -> Result<Answer, BadRequest> {
        let request = std::str::from_utf8(request).map_err(|_| BadRequest::NotUtf8)?;
        let (map, key) = request.split_once(' ').ok_or(BadRequest::NoKey)?;
        let found = look_up(map, key, &self.engine.snapshot(), peer == Peer::Local);
        Ok(match found {
            Found::Answer(answer) => answer,
            Found::LoginAt(login) => self.login(login).await,
        })
    }

    async fn login(&self, login: LoginAt) -> Answer {
        // A file may lie on a disk that hangs: that keeps up nobody else.
        let sender = login.sender.clone();
        let trouble = match tokio::task::spawn_blocking(move || login.read()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "internal error".to_owned(),
        };
        if let Some(suppressed) = self.unreadable.check(sender.clone(), std::time::Instant::now()) {
            let more = if suppressed > 0 { format!(" ({suppressed} more like it)") } else { String::new() };
            let log = &self.engine.log;
            log.warn(format_args!("the password_file of the sender {sender} cannot be used: {trouble}{more}"));
        }
        Answer::Temporary("the password file cannot be used; see relaykeeper's log".into())
    }
}
