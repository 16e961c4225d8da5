//! Where a copy of the message goes (relay service, section 9).

use crate::directory::{Customer, User};
use crate::envelope::{Address, Sender};
use crate::policy::front_end::FrontEnd;
use crate::policy::trace::Trace;

/// The address of the copy. It is filed under the user's own address, whichever of them was used; under the sender, if that is no
/// user; and mail without a sender, or from one without a domain, under the customer's postmaster.
pub fn archive_address(sender: &Sender, user: Option<&User>, customer: &Customer) -> Option<Address> {
    let template = customer.archive_to.as_ref()?;
    let owner = match (user, sender.address()) {
        (Some(user), _) => Address::from_internal(&user.address).ok()?,
        (None, Some(address)) if !address.domain().is_empty() => address.clone(),
        _ => Address::from_internal(&format!("postmaster@{}", customer.domains.first()?)).ok()?,
    };
    template.expand(&owner)
}

pub fn note(address: Option<&Address>, front_end: FrontEnd, trace: &mut Trace) {
    let Some(address) = address else { return };
    match front_end.can_archive {
        true => {
            trace.note("archive", "copy", || format!("a copy of the message goes to {address}, and counts for nobody"))
        }
        false => {
            trace.note("archive", "cannot", || format!("no copy goes to {address}: only a milter can add a recipient"))
        }
    }
}
