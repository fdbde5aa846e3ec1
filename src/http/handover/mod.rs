//! What visitors meet at the front of a container: they are served, held, or passed on.

mod settings;

pub use self::settings::HandoverSettings;
