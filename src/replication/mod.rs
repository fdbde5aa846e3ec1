//! The replica, and who may write it.
//!
//! Each holder of the lease replicates into a *generation* of its own, a folder named by its epoch: who has lost the
//! lease and does not know it yet writes where nobody reads.

mod bucket;
mod error;
mod generations;
mod record;
mod settings;
mod snapshots;
mod stamp;

pub use self::bucket::Bucket;
pub use self::bucket::Object;
pub use self::bucket::Place;
pub use self::bucket::Transfer;
pub use self::bucket::Version;
pub use self::error::Error;
pub use self::error::Result;
pub use self::generations::Generation;
pub use self::generations::Generations;
pub use self::generations::Pruned;
pub use self::record::Holder;
pub use self::record::Record;
pub use self::settings::ConditionalWrites;
pub use self::settings::Conflict;
pub use self::settings::Outage;
pub use self::settings::Settings;
pub use self::settings::SnapshotSettings;
pub use self::snapshots::Snapshot;
pub use self::snapshots::SnapshotStatus;
pub use self::snapshots::Snapshots;
pub use self::snapshots::Stage;
