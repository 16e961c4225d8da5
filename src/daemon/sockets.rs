//! The sockets of the configuration, bound all together or not at all.

use crate::config::Listen;
use crate::listen::{BindError, KeptSockets, ListenAddress, Listener, SocketOptions, bind_or_take};
use crate::report::Logger;

/// What the daemon listens on.
#[derive(Debug)]
pub struct Sockets {
    pub milter: Vec<Listener>,
    pub policy: Vec<Listener>,
    pub socketmap: Vec<Listener>,
    pub control: Option<Listener>,
}

impl Sockets {
    /// Binds every address of `[listen]` that is not among `kept` already. What `[listen]` does not name any more is closed.
    ///
    /// `owner`: the user whom the files of unix sockets are given to.
    ///
    /// # Errors
    /// The first address that cannot be bound; none stays bound then.
    pub fn bind(
        listen: &Listen,
        owner: Option<u32>,
        kept: &mut KeptSockets,
        log: &Logger,
    ) -> Result<Sockets, BindError> {
        let options = SocketOptions { mode: listen.socket_mode, group: listen.socket_group.clone(), owner };
        let mut all = |addresses: &[ListenAddress], key| {
            addresses
                .iter()
                .map(|address| bind_or_take(address, &options, key, kept, log))
                .collect::<Result<Vec<_>, _>>()
        };
        // Whoever may write to the control socket is an administrator.
        let administrators = SocketOptions { mode: 0o600, group: None, owner };
        let milter = all(&listen.milter, "listen.milter")?;
        let policy = all(&listen.policy, "listen.policy")?;
        let socketmap = all(&listen.socketmap, "listen.socketmap")?;
        let control = listen
            .control
            .as_ref()
            .map(|address| bind_or_take(address, &administrators, "listen.control", kept, log))
            .transpose()?;
        kept.close_the_rest();
        Ok(Sockets { milter, policy, socketmap, control })
    }
}
