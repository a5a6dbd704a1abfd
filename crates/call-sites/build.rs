//! Writes the calls: a call of a macro would have the location of the macro's use, whatever it expands to.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const CALL_SITES: usize = 100_000;

/// Functions with more calls take longer to compile.
const CALLS_PER_FUNCTION: usize = 250;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let directory = env::var_os("OUT_DIR").expect("cargo sets it");
    let code = code().expect("memory");
    fs::write(Path::new(&directory).join("calls.rs"), code).expect("cargo's directory can be written");
}

fn code() -> Result<String, std::fmt::Error> {
    let functions = CALL_SITES / CALLS_PER_FUNCTION;
    let mut code = format!("/// The number of call sites.\npub const CALL_SITES: usize = {CALL_SITES};\n\n");
    for function in 0..functions {
        writeln!(code, "fn calls_{function}<C: Callee>(callee: &mut C, site: usize) {{\n    match site {{")?;
        for call in 0..CALLS_PER_FUNCTION {
            writeln!(code, "        {call} => callee.called(),")?;
        }
        writeln!(code, "        _ => {{}}\n    }}\n}}\n")?;
    }
    writeln!(code, "/// Calls `callee` at a call site, counted from zero; does nothing if there is no such site.")?;
    writeln!(code, "pub fn call_at<C: Callee>(callee: &mut C, site: usize) {{")?;
    writeln!(code, "    match site / {CALLS_PER_FUNCTION} {{")?;
    for function in 0..functions {
        writeln!(code, "        {function} => calls_{function}(callee, site % {CALLS_PER_FUNCTION}),")?;
    }
    writeln!(code, "        _ => {{}}\n    }}\n}}")?;
    Ok(code)
}
