//! The replica, and who may write it.
//!
//! Each holder of the lease replicates into a *generation* of its own, a folder named by its epoch: who has lost the
//! lease and does not know it yet writes where nobody reads.

mod bucket;
mod control;
mod error;
mod generations;
pub(crate) mod lease;
mod lineage;
mod lines;
mod litestream;
mod program;
mod record;
mod replica;
mod restore;
pub mod rules;
mod scratch;
mod settings;
mod snapshots;
mod sources;
mod stamp;
pub(crate) mod volume;

pub use self::bucket::Bucket;
pub use self::bucket::Object;
pub use self::bucket::Place;
pub use self::bucket::Transfer;
pub use self::bucket::Version;
pub use self::control::Control;
pub use self::control::Position;
pub use self::error::Error;
pub use self::error::Result;
pub use self::generations::Generation;
pub use self::generations::Generations;
pub use self::generations::Pruned;
pub use self::lease::Candidate;
pub use self::lease::Lease;
pub use self::lease::Look;
pub use self::lease::look;
pub use self::lease::release;
pub use self::lineage::Lineage;
pub use self::lineage::fits;
pub use self::litestream::Litestream;
pub use self::litestream::Stopped;
pub use self::record::Holder;
pub use self::record::Record;
pub use self::replica::Reached;
pub use self::replica::Replica;
pub use self::replica::ReplicaStatus;
pub use self::restore::RestoreProgress;
pub use self::restore::Restored;
pub use self::restore::restore;
pub(crate) use self::restore::restore_over;
pub use self::restore::restore_to;
pub use self::settings::ConditionalWrites;
pub use self::settings::Conflict;
pub use self::settings::Outage;
pub use self::settings::Settings;
pub use self::settings::SnapshotSettings;
pub use self::snapshots::Snapshot;
pub use self::snapshots::SnapshotStatus;
pub use self::snapshots::Snapshots;
pub use self::snapshots::Stage;
pub(crate) use self::sources::Brought;
pub(crate) use self::sources::Source;
pub(crate) use self::sources::bring_back;
