//! A value that is read from files, and read again when they change.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::watched::Files;

/// The minimum time between two checks of the files.
pub(crate) const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time that a caller waits for a check, before it uses the current value.
const FILE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads a value from files.
pub(crate) trait Source: Send + Sync + 'static {
    type Value: Send + Sync + 'static;

    /// Reads the value that is to replace `current`, and adds its files to `files`. Blocks on disk I/O.
    ///
    /// # Errors
    ///
    /// Returns the error as one line without secrets, if the value cannot be read or must not replace the current one.
    fn reread(&self, current: &Self::Value, files: &mut Files) -> Result<Self::Value, String>;

    /// Logs that the value was replaced, or the error, which may be that of the previous readings as well: limits its lines.
    fn log(&self, result: Result<(), &str>);
}

/// The current value of a source. Those that use it check its files.
///
/// An invalid reading does not replace the value, since a file may be half written; it is repeated with each check.
pub(crate) struct Live<S: Source> {
    source: S,
    state: Mutex<State<S::Value>>,
}

struct State<T> {
    value: Arc<T>,
    /// The files of the last reading, successful or not.
    files: Files,
    checked: Instant,
    is_checking: bool,
    /// The error of the last reading.
    error: Option<String>,
}

impl<S: Source> Live<S> {
    /// Creates a value that was read from `files`.
    pub(crate) fn new(source: S, value: S::Value, files: Files) -> Self {
        let state = State { value: Arc::new(value), files, checked: Instant::now(), is_checking: false, error: None };
        Self { source, state: Mutex::new(state) }
    }

    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// Returns the current value without a check.
    pub(crate) fn value(&self) -> Arc<S::Value> {
        Arc::clone(&self.lock().value)
    }

    /// Returns why the files could not be read since; `None` if the value is that of the files.
    pub(crate) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// Returns the current value. The files are checked first, on a thread for blocking work, unless that was done
    /// within the last second or is in progress.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<S::Value> {
        if let Some(check) = self.begin_check() {
            // A disk that hangs occupies this one thread, and no other caller checks.
            let checked = spawn_blocking(move || check.run());
            let _ = timeout(FILE_CHECK_TIMEOUT, checked).await;
        }
        self.value()
    }

    fn begin_check(self: &Arc<Self>) -> Option<FileCheck<S>> {
        let mut state = self.lock();
        if state.is_checking || state.files.is_empty() || state.checked.elapsed() < FILE_CHECK_INTERVAL {
            return None;
        }
        state.is_checking = true;
        state.checked = Instant::now();
        let files = mem::replace(&mut state.files, Files::again());
        // An error may be gone although no file has changed: a lack of file descriptors, for example.
        let retry = state.error.is_some();
        Some(FileCheck { live: Arc::clone(self), files: Some(files), retry })
    }

    fn lock(&self) -> MutexGuard<'_, State<S::Value>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the last reading appear to have failed with `error`.
    #[cfg(test)]
    pub(crate) fn set_error(&self, error: &str) {
        self.lock().error = Some(error.to_owned());
    }
}

impl<S: Source> fmt::Debug for Live<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// A check of the files, which ends when it is dropped.
struct FileCheck<S: Source> {
    live: Arc<Live<S>>,
    files: Option<Files>,
    /// Whether to read even if no file has changed.
    retry: bool,
}

impl<S: Source> FileCheck<S> {
    fn run(mut self) {
        if self.retry || self.files.as_ref().is_some_and(Files::have_changed) {
            let mut files = Files::again();
            let read = self.live.source.reread(&self.live.value(), &mut files);
            self.files = Some(files);
            let replaced = self.replace(read);
            // Without the lock: logging may block.
            self.live.source.log(replaced.as_ref().map_err(String::as_str).copied());
        }
    }

    /// Replaces the current value, or records and returns the error.
    fn replace(&self, read: Result<S::Value, String>) -> Result<(), String> {
        let mut state = self.live.lock();
        let result = read.map(|value| state.value = Arc::new(value));
        state.error = result.as_ref().err().cloned();
        result
    }
}

impl<S: Source> Drop for FileCheck<S> {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        state.is_checking = false;
        if let Some(files) = self.files.take() {
            state.files = files;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread::{self, ThreadId};

    use tempfile::TempDir;
    use tokio::time::advance;

    use super::*;

    /// A number in a file.
    struct NumberFile {
        path: PathBuf,
        readings: Arc<AtomicUsize>,
        log: Arc<Mutex<Vec<String>>>,
        threads: Arc<Mutex<Vec<ThreadId>>>,
    }

    impl Source for NumberFile {
        type Value = u32;

        fn reread(&self, _: &u32, files: &mut Files) -> Result<u32, String> {
            self.readings.fetch_add(1, Relaxed);
            self.threads.lock().unwrap().push(thread::current().id());
            let text = files.read(&self.path).map_err(|error| error.to_string())?;
            String::from_utf8(text).unwrap().parse().map_err(|_| "not a number".to_owned())
        }

        fn log(&self, result: Result<(), &str>) {
            self.log.lock().unwrap().push(result.map_or_else(str::to_owned, |()| "replaced".to_owned()));
        }
    }

    struct Fixture {
        directory: TempDir,
        live: Arc<Live<NumberFile>>,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("number");
            fs::write(&path, "1").unwrap();
            let (readings, log, threads) = Default::default();
            let source = NumberFile { path, readings, log, threads };
            let mut files = Files::first();
            let value = source.reread(&0, &mut files).unwrap();
            Self { directory, live: Arc::new(Live::new(source, value, files)) }
        }

        fn write(&self, content: &str) {
            let new = self.directory.path().join("new");
            fs::write(&new, content).unwrap();
            fs::rename(new, self.directory.path().join("number")).unwrap();
        }

        /// Returns the value after a check.
        async fn checked(&self) -> u32 {
            advance(FILE_CHECK_INTERVAL).await;
            *self.live.current().await
        }

        fn readings(&self) -> usize {
            self.live.source().readings.load(Relaxed)
        }

        fn log(&self) -> Vec<String> {
            self.live.source().log.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_file_replaces_the_value() {
        let fixture = Fixture::new();
        assert_eq!((fixture.checked().await, fixture.readings()), (1, 1), "nothing has changed");
        fixture.write("2");
        assert_eq!(*fixture.live.current().await, 1, "checked less than a second ago");
        assert_eq!((fixture.checked().await, fixture.readings()), (2, 2));
        assert_eq!(fixture.log(), ["replaced"]);
        // The test's own thread is the runtime's worker.
        assert_ne!(fixture.live.source().threads.lock().unwrap()[1], thread::current().id());
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_file_keeps_the_value() {
        let fixture = Fixture::new();
        for content in ["x", "y"] {
            fixture.write(content);
            assert_eq!(fixture.checked().await, 1);
            assert_eq!(fixture.live.error().as_deref(), Some("not a number"));
        }
        assert_eq!((fixture.checked().await, fixture.readings()), (1, 4), "it is read again without a change");
        assert_eq!(fixture.log(), ["not a number"; 3]);
        fs::remove_file(fixture.directory.path().join("number")).unwrap();
        assert_eq!(fixture.checked().await, 1);
        fixture.write("3");
        assert_eq!((fixture.checked().await, fixture.live.error()), (3, None));
        assert_eq!(fixture.log().len(), 5, "{:?}", fixture.log());
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn fifo_is_read_only_once() {
        use nix::sys::stat::Mode;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let writer = thread::spawn({
            let path = path.clone();
            move || fs::write(path, "1").unwrap()
        });
        let (readings, log, threads) = Default::default();
        let source = NumberFile { path: path.clone(), readings, log, threads };
        let mut files = Files::first();
        let value = source.reread(&0, &mut files).unwrap();
        writer.join().unwrap();
        let fixture = Fixture { directory, live: Arc::new(Live::new(source, value, files)) };
        fixture.write("2");
        assert_eq!((fixture.checked().await, fixture.readings()), (1, 1));
    }
}
