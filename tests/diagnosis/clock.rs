//! Clocks that jump: libfaketime, preloaded into the process of a case and its server, reads the offset from a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use poolscope_testing::server::Builder;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// The variable that names the library.
const LIBRARY: &str = "LD_PRELOAD";

/// The file is read once per second. Timers use the monotonic clock.
const OPTIONS: [(&str, &str); 2] = [("FAKETIME_CACHE_DURATION", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];

/// The variable that names the file with the offset.
const OFFSET_FILE: &str = "FAKETIME_TIMESTAMP_FILE";

/// How long the processes take at most to use a new offset. They read the file once per second.
const JUMP_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the library, if it is installed.
fn library() -> Option<PathBuf> {
    let name = Path::new("faketime/libfaketimeMT.so.1");
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    [multiarch.as_str(), "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|parent| Path::new(parent).join(name))
        .find(|file| file.exists())
}

/// Lets the clock of a process jump later. Returns whether that is possible.
pub(crate) fn prepare(command: &mut Command, directory: &Path, case: &str) -> bool {
    let Some(library) = library() else { return false };
    let offset = directory.join(format!("{case}.offset"));
    if fs::write(&offset, "+0").is_err() {
        return false;
    }
    command.env(LIBRARY, library).env(OFFSET_FILE, offset).envs(OPTIONS);
    true
}

/// Lets the clock of a server jump with that of this process.
pub(crate) fn share(server: Builder) -> Builder {
    let Some((library, offset)) = std::env::var_os(LIBRARY).zip(std::env::var_os(OFFSET_FILE)) else { return server };
    let server = server.env(LIBRARY, library).env(OFFSET_FILE, offset);
    OPTIONS.iter().fold(server, |server, (name, value)| server.env(*name, *value))
}

/// Returns the time of the server's clock.
async fn server_time(client: &Client) -> SystemTime {
    client.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0)
}

/// Moves the clocks of this process and its server, and waits until they have moved.
pub(crate) async fn jump(seconds: i64, client: &Client) {
    let (before, started) = ([SystemTime::now(), server_time(client).await], Instant::now());
    fs::write(std::env::var_os(OFFSET_FILE).unwrap(), format!("{seconds:+}")).unwrap();
    let at_least = Duration::from_secs(seconds.unsigned_abs() / 2);
    let has_moved = |before: SystemTime, now: SystemTime| {
        let (later, earlier) = if seconds < 0 { (before, now) } else { (now, before) };
        later.duration_since(earlier).is_ok_and(|moved| moved >= at_least)
    };
    loop {
        let now = [SystemTime::now(), server_time(client).await];
        if before.iter().zip(now).all(|(before, now)| has_moved(*before, now)) {
            return;
        }
        assert!(started.elapsed() < JUMP_TIMEOUT, "the clocks did not jump: {before:?}, {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
