//! 200 pools with 20 holders each.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::browser::Browser;
use crate::site::Site;

const POOLS: usize = 200;
const HOLDERS: usize = 20;

/// Counts the frames of a second.
const FRAMES: &str = "new Promise(resolve => { let count = 0; const begin = performance.now();
    const frame = now => { if (now - begin >= 1000) resolve(count * 1000 / (now - begin)); else { count += 1; requestAnimationFrame(frame); } };
    requestAnimationFrame(frame); })";

#[test]
fn two_hundred_pools_stay_above_30_frames_per_second() {
    // Each connection has two descriptors here: the server is in this process too.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let needed = (2 * POOLS * HOLDERS + 1000) as u64;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).unwrap();
    }
    let held = if hard < needed { 2 } else { HOLDERS };
    let mut site = Site::start();
    for number in 0..POOLS {
        site.pool_with_holders(&format!("pool_{number:03}"), HOLDERS, held);
    }
    let mut browser = Browser::start();
    browser.open(&format!("{}?pool=pool_007", site.url()));
    browser.wait(&format!("document.querySelectorAll('#pool-rows tr').length === {POOLS}"));
    browser.wait(&format!("document.querySelectorAll('#holders tbody tr').length === {held}"));
    let shown = browser.eval("document.getElementById('app').dataset.time");
    browser.wait(&format!("document.getElementById('app').dataset.time > {shown} + 2"));
    let mut rates: Vec<f64> = Vec::new();
    // The machine may be busy with something else for some seconds.
    for _ in 0..20 {
        rates.push(browser.eval(FRAMES).as_f64().unwrap());
        let recent = &rates[rates.len().saturating_sub(3)..];
        if recent.len() == 3 && recent.iter().all(|rate| *rate > 30.0) {
            println!("frames per second: {rates:.1?}");
            browser.assert_clean(&site.url());
            return;
        }
    }
    panic!("frames per second: {rates:.1?}");
}
