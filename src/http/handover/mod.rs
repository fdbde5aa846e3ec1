//! What visitors meet at the front of a container: they are served, held, or passed on.
//!
//! One rule: a container that does not serve passes every request on to the one that does, and when nobody does, it
//! holds them, within limits, until somebody does. [`Front`] is where they arrive and is told which of the three it
//! is; [`Peer`] is another container of the same site. Connections stay open through every change.

mod addresses;
mod begun;
mod control;
mod door;
mod flow;
mod front;
mod headers;
mod hold;
mod loan;
mod peer;
mod settings;
mod status;
mod tunnel;

pub use self::addresses::addresses;
pub use self::control::Control;
pub use self::front::Front;
pub use self::peer::Peer;
pub use self::peer::PeerError;
pub use self::settings::HandoverSettings;
pub use self::status::Progress;
pub use self::status::Role;
pub use self::status::Status;
