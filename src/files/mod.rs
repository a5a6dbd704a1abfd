//! Files that users name: certificates, keys, passwords and configurations.
//!
//! Each is read with a bound on its size and must be a regular file or a FIFO, so that a mistaken path such as
//! `/dev/zero` is an error. [`Live`] reads files again when they have changed.

#[cfg_attr(not(unix), path = "no_unix.rs")]
mod permissions;
mod read;
mod reload;
mod watched;

pub(crate) use self::read::{SecretKind, read};
#[cfg(test)]
pub(crate) use self::reload::FILE_CHECK_INTERVAL;
pub(crate) use self::reload::{Live, Source};
pub(crate) use self::watched::Files;
