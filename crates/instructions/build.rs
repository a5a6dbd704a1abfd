//! Passes the compiler's version on, since counts depend on it.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo:rustc-env=POOLSCOPE_COMPILER={}", version.trim());
    println!("cargo:rustc-env=POOLSCOPE_TARGET={}", env::var("TARGET").unwrap_or_default());
}
