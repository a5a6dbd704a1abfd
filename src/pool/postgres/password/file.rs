//! The file that contains the password.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::pool_name::PoolName;
use super::passfile::Passfile;
use super::secret::Secret;
use crate::config::{ConfigError, Settings};
use crate::files::{Files, Live, SecretKind, Source};
use crate::telemetry::log::{ReloadLimiter, event};
use crate::text::ErrorChain;

/// The file of the setting `password_file` or `passfile`.
pub(in crate::pool::postgres) struct PasswordFile {
    path: PathBuf,
    format: Format,
    pool: PoolName,
    limiter: ReloadLimiter,
}

#[derive(Clone, Copy)]
enum Format {
    Password,
    Passfile,
}

/// What a file contains.
pub(in crate::pool::postgres) enum FileContent {
    Password(Secret),
    Passfile(Passfile),
}

impl PasswordFile {
    /// Returns the file that the settings name.
    pub(super) fn new(settings: &Settings, pool: &PoolName) -> Option<Self> {
        let (path, format) = match (&settings.password_file, &settings.passfile) {
            (Some(path), _) => (path, Format::Password),
            (None, Some(path)) => (path, Format::Passfile),
            (None, None) => return None,
        };
        Some(Self { path: PathBuf::from(path), format, pool: pool.clone(), limiter: ReloadLimiter::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file for the first time.
    pub(super) fn read(self) -> Result<Arc<Live<Self>>, ConfigError> {
        let mut files = Files::first();
        let content = self.load(&mut files)?;
        Ok(Arc::new(Live::new(self, content, files)))
    }

    fn load(&self, files: &mut Files) -> Result<FileContent, ConfigError> {
        let error = |problem: &str, remedy, source| ConfigError::File {
            setting: match self.format {
                Format::Password => "password_file",
                Format::Passfile => "passfile",
            },
            path: self.path.clone(),
            problem: problem.to_owned(),
            remedy,
            source,
        };
        let remedy = match self.format {
            Format::Password => "give a file that contains only the password",
            Format::Passfile => "give a file with lines host:port:database:user:password, as for psql",
        };
        let unreadable = |source| error("cannot be read", remedy, Some(source));
        match self.format {
            Format::Password => {
                let content = files.read(&self.path).map_err(unreadable)?;
                let line = content.strip_suffix(b"\n").unwrap_or(&content);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let problem = match line {
                    [] => "is empty",
                    line if line.contains(&b'\n') => "has more than one line",
                    line if line.contains(&0) => "contains a zero byte",
                    line => return Ok(FileContent::Password(Secret::from(line.to_vec()))),
                };
                Err(error(problem, remedy, None))
            }
            Format::Passfile => {
                let file = files.read_secrets(&self.path, SecretKind::Passfile).map_err(unreadable)?;
                if file.is_exposed {
                    let remedy = "set its permissions to 0600";
                    return Err(error("is readable by others than its owner", remedy, None));
                }
                Ok(FileContent::Passfile(Passfile::parse(&file.content)))
            }
        }
    }
}

impl Source for PasswordFile {
    type Value = FileContent;

    fn reread(&self, _: &FileContent, files: &mut Files) -> Result<FileContent, String> {
        self.load(files).map_err(|error| ErrorChain(&error).to_string())
    }

    fn log(&self, result: Result<(), &str>) {
        let Some(suppressed) = self.limiter.pass(result) else { return };
        let pool = self.pool.as_str();
        match result {
            Ok(()) => event!(info, pool, suppressed, "reloaded the password file"),
            Err(error) => {
                event!(
                    error,
                    pool,
                    error,
                    suppressed,
                    "the password file has changed and cannot be used; the previous one is used"
                );
            }
        }
    }
}
