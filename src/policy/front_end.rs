//! Who asks, and what it can do with the answer.

use crate::config::OnRewrite;

/// The protocol through which the MTA asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtaProtocol {
    Milter,
    Policy,
}

impl MtaProtocol {
    /// As in logs and metrics.
    pub const fn key(self) -> &'static str {
        match self {
            MtaProtocol::Milter => "milter",
            MtaProtocol::Policy => "policy",
        }
    }
}

/// What can be done with a message where a transaction is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontEnd {
    pub protocol: MtaProtocol,
    pub rewriting: Rewriting,
    /// A recipient can be added to the message: the archive.
    pub can_archive: bool,
    /// sendmail(1) hands the message in: nothing can be refused before its end, and nobody splits it.
    pub is_local: bool,
}

/// Whether the envelope sender can be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewriting {
    Possible,
    /// It cannot, and the operator lets mail pass all the same; but not with the address of another customer's user.
    Waived,
    Impossible {
        reject: bool,
    },
}

impl FrontEnd {
    /// A milter, by the actions that the MTA offered.
    pub fn milter(can_change_sender: bool, can_add_recipient: bool) -> FrontEnd {
        let rewriting = match can_change_sender {
            true => Rewriting::Possible,
            false => Rewriting::Impossible { reject: false },
        };
        FrontEnd { protocol: MtaProtocol::Milter, rewriting, can_archive: can_add_recipient, is_local: false }
    }

    /// The same for a session of sendmail(1).
    pub fn with_local(self, is_local: bool) -> FrontEnd {
        FrontEnd { is_local, ..self }
    }

    /// The policy service, which can change nothing itself. `milter_open`: a milter session is open for the same SMTP session, and
    /// rewrites and archives in its place.
    pub fn policy_service(on_rewrite: OnRewrite, milter_open: bool) -> FrontEnd {
        let rewriting = match on_rewrite {
            OnRewrite::Continue | OnRewrite::Auto if milter_open => Rewriting::Possible,
            OnRewrite::Continue => Rewriting::Waived,
            OnRewrite::Auto | OnRewrite::Defer => Rewriting::Impossible { reject: false },
            OnRewrite::Reject => Rewriting::Impossible { reject: true },
        };
        FrontEnd { protocol: MtaProtocol::Policy, rewriting, can_archive: milter_open, is_local: false }
    }
}
