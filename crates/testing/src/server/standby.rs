//! Streaming replication: a server that becomes a standby of another, and its promotion.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::builder::append;
use super::{Server, ServerError, Shutdown, programs};

impl Server {
    /// Makes this server a streaming standby of `primary`, with a copy of its data. Both are stopped meanwhile.
    ///
    /// The primary needs `wal_level=replica`, `max_wal_senders` and [`tcp`](super::Builder::tcp).
    ///
    /// # Errors
    /// If the data cannot be copied, or a server does not start.
    pub async fn become_standby_of(&self, primary: &Self) -> Result<(), ServerError> {
        self.stop(Shutdown::Fast).await?;
        primary.stop(Shutdown::Fast).await?;
        let (data, source) = (self.directory.join("data"), primary.directory.join("data"));
        copy(&source, &data).map_err(|source| ServerError::Write { path: data.clone(), source })?;
        let line = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres sslmode=disable'\n", primary.port);
        append(&self.directory, &line)?;
        let signal = data.join("standby.signal");
        fs::write(&signal, "").map_err(|source| ServerError::Write { path: signal, source })?;
        primary.start().await?;
        self.start().await
    }

    /// Promotes a standby with `pg_ctl promote`, and waits until it accepts writes.
    ///
    /// # Errors
    /// If `pg_ctl` is not installed or fails.
    ///
    /// # Panics
    /// Panics if the task that runs it does.
    pub async fn promote(&self) -> Result<(), ServerError> {
        let data = self.directory.join("data");
        let failed = |source| ServerError::Write { path: self.directory.join("data"), source };
        let owner = fs::metadata(&data).map_err(failed)?;
        let mut command = Command::new(programs::find()?.join("pg_ctl"));
        command.args(["promote", "--wait", "--silent", "--pgdata"]).arg(&data).current_dir(&self.directory);
        if nix::unistd::Uid::effective().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let promoted = tokio::task::spawn_blocking(move || command.status()).await.expect("no panic");
        let promoted = promoted.map_err(failed)?;
        if promoted.success() { Ok(()) } else { Err(failed(io::Error::other(format!("pg_ctl promote: {promoted}")))) }
    }
}

/// Replaces the data in `to` by a copy of `from`, except for the configuration.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let configuration = fs::read(to.join("postgresql.conf"))?;
    let owner = fs::metadata(to)?;
    fs::remove_dir_all(to)?;
    // Owners and permissions are kept.
    let status = Command::new("cp").arg("-Rp").arg(from).arg(to).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cp: {status}")));
    }
    let path = to.join("postgresql.conf");
    fs::write(&path, configuration)?;
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}
