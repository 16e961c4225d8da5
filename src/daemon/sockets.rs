//! The sockets of the configuration, bound all together or not at all.

use crate::config::Listen;
use crate::listen::{BindError, ListenAddress, Listener, SocketOptions, bind};
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
    /// Binds every address of `[listen]`.
    ///
    /// # Errors
    /// The first address that cannot be bound; none stays bound then.
    pub fn bind(listen: &Listen, log: &Logger) -> Result<Sockets, BindError> {
        let options = SocketOptions { mode: listen.socket_mode, group: listen.socket_group.clone() };
        let all = |addresses: &[ListenAddress], key| {
            addresses.iter().map(|address| bind(address, &options, key, log)).collect::<Result<Vec<_>, _>>()
        };
        // Whoever may write to the control socket is an administrator.
        let administrators = SocketOptions { mode: 0o600, group: None };
        Ok(Sockets {
            milter: all(&listen.milter, "listen.milter")?,
            policy: all(&listen.policy, "listen.policy")?,
            socketmap: all(&listen.socketmap, "listen.socketmap")?,
            control: listen
                .control
                .as_ref()
                .map(|address| bind(address, &administrators, "listen.control", log))
                .transpose()?,
        })
    }
}
