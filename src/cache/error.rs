//! What a call to the cache can be refused for.

/// Why a value was not kept.
///
/// Nothing that goes wrong with the file is among these: that is a miss, and a warning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value is larger than `cache.value_bytes_max`.
    #[error(
        "a value of {bytes} bytes is too large for the cache, which keeps up to {bytes_max} (cache.value_bytes_max)"
    )]
    TooLarge {
        /// What it takes, encoded.
        bytes: usize,
        /// What it may take.
        bytes_max: usize,
    },
    /// A value cannot be encoded.
    #[error("a value cannot be encoded for the cache: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// What is to be incremented is no integer.
    #[error("the cache has no integer under this key, so it cannot be incremented")]
    NotANumber,
    /// The sum is no `i64`; the entry is as it was.
    #[error("{value} + {by} is beyond what an i64 holds, so the entry stays as it is")]
    Overflow {
        /// What is there.
        value: i64,
        /// What was to be added.
        by: i64,
    },
}
