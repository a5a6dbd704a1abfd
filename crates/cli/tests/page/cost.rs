//! What viewers cost the process, measured on request.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::site::Site;

const VIEWERS: usize = 10;
const INTERVAL: Duration = Duration::from_secs(60);

/// Returns the CPU time of this process during [`INTERVAL`], as a share of a core.
fn share() -> f64 {
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds().unsigned_abs())
    };
    let before = cpu();
    thread::sleep(INTERVAL);
    (cpu() - before).as_secs_f64() / INTERVAL.as_secs_f64()
}

/// Other tests of the process must not run meanwhile: `cargo test -p poolscope-cli --test page cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures for two minutes, alone"]
fn ten_viewers_cost_little() {
    let mut site = Site::start();
    site.exhausted_pool("shop", 10, "list_orders");
    let without = share();
    let view = |_| -> Child {
        let mut command = Command::new("curl");
        command.args(["--silent", "--no-buffer", &format!("{}api/v1/stream?pool=shop", site.url())]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let mut viewers: Vec<_> = (0..VIEWERS).map(view).collect();
    thread::sleep(Duration::from_secs(2));
    let with = share();
    for viewer in &mut viewers {
        assert!(viewer.try_wait().unwrap().is_none(), "a viewer ended");
        viewer.kill().unwrap();
        viewer.wait().unwrap();
    }
    println!("share of a core: {:.3} % without, {:.3} % with {VIEWERS} viewers", 100.0 * without, 100.0 * with);
}
