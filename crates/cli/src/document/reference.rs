//! Compares the tables of keys in the documentation with the code.

const BEGIN: &str = "<!-- keys -->\n";
const END: &str = "<!-- /keys -->\n";

/// Compares the table of keys on a page of the command `command` with `table`, or writes it when `POOLSCOPE_BLESS` is set.
pub(crate) fn assert_keys_current(command: &str, table: &str) {
    let path = format!("{}/../../docs/{command}.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert_eq!(
            page, expected,
            "regenerate docs/{command}.md with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib {command}"
        );
    }
}
