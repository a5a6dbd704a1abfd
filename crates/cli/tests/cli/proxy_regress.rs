//! PostgreSQL's own regression tests, directly and through `poolscope proxy`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use poolscope_testing::server::Server;

use super::proxy::{Environment, program};

/// `make proxy-regress` downloads PostgreSQL's sources, and names them.
#[test]
#[ignore = "needs PostgreSQL's sources: make proxy-regress"]
fn regression_tests_print_the_same() {
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect("run make proxy-regress"));
    let (source, runner) = (variable("POOLSCOPE_REGRESS"), variable("POOLSCOPE_REGRESS_RUNNER"));
    let (module, libraries) = (variable("POOLSCOPE_REGRESS_MODULE"), variable("POOLSCOPE_REGRESS_LIBRARIES"));
    // As without a configuration, which the expected output is of.
    let settings = [("wal_level", "replica"), ("max_wal_senders", "10"), ("max_connections", "100")];
    let environment = Environment::with("", Server::builder().settings(settings), |command| command);
    // The server's user reads files of the tests, and writes results. It could not remove the files from its own directory.
    let directory = environment.directory.path().join("regress");
    fs::set_permissions(environment.directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let run = |program: &str, arguments: &[&Path]| {
        let mut command = Command::new(program);
        command.args(arguments);
        assert!(command.status().expect(program).success(), "{command:?}");
    };
    run("cp", &[Path::new("-R"), &source, &directory]);
    run("cp", &[&module, &libraries.join("autoinc.so"), &libraries.join("refint.so"), &directory]);
    let results = ["direct", "through"].map(|way| directory.join(way));
    for (results, port) in results.iter().zip([environment.server.port(), environment.proxy.port()]) {
        for written in [results.clone(), results.join("results"), results.join("testtablespace")] {
            fs::create_dir_all(&written).expect("a directory");
            fs::set_permissions(&written, fs::Permissions::from_mode(0o777)).expect("permissions");
        }
        let mut command = Command::new(&runner);
        for (flag, value) in [
            ("inputdir", directory.display().to_string()),
            ("outputdir", results.display().to_string()),
            ("dlpath", directory.display().to_string()),
            ("bindir", program("psql").parent().expect("a directory").display().to_string()),
            ("schedule", directory.join("parallel_schedule").display().to_string()),
            ("host", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("user", "postgres".to_owned()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        let status = command.status().expect("pg_regress");
        println!("{}: {status}", results.display());
    }
    let read = |file: PathBuf| fs::read_to_string(file).ok();
    // Where a test's output depends on the platform, there are further files: `name_1.out`.
    let expected = |name: &str| -> Vec<String> {
        let names = (0..10).map(|number| format!("{name}_{number}.out")).chain([format!("{name}.out")]);
        names.filter_map(|name| read(directory.join("expected").join(name))).collect()
    };
    let (mut passed, mut failed, mut differing) = (0_u32, Vec::new(), Vec::new());
    for file in fs::read_dir(results[0].join("results")).expect("results").flatten() {
        let name = file.file_name().into_string().expect("a name");
        let Some(name) = name.strip_suffix(".out") else { continue };
        let text = |way: &PathBuf| {
            let output = fs::read(way.join("results").join(format!("{name}.out"))).expect("an output");
            String::from_utf8_lossy(&output).replace(&way.display().to_string(), "")
        };
        let [direct, through] = results.each_ref().map(text);
        let expected = expected(name);
        match (expected.contains(&through), direct == through) {
            (true, _) => passed += 1,
            // For a reason that is not the proxy's.
            (false, true) => failed.push(name.to_owned()),
            (false, false) => differing.push(name.to_owned()),
        }
    }
    println!(
        "through the proxy, {passed} tests print what PostgreSQL expects; the same as directly, but not that: {failed:?}"
    );
    assert!(differing.is_empty(), "the output differs from that of a direct connection: {differing:?}");
    assert!(passed > 150, "{passed}");
    let sum = |name| environment.scrape().sum(name, &[]);
    let (created, lost) = (sum("poolscope_connections_created_total"), sum("poolscope_wires_lost_total"));
    println!("the proxy observed {created} connections, and did not understand {lost} of them");
    assert!(created > f64::from(passed) && lost == 0.0, "{created} {lost}");
}
