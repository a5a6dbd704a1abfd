//! Checks that the generated pages of the documentation are current.

/// Compares a file of the repository with `generated`, or writes it when `POOLSCOPE_BLESS` is set. `source` is what it is
/// generated from.
pub(crate) fn assert_current(file: &str, generated: &str, source: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == generated,
        "{file} differs from {source}: regenerate it with POOLSCOPE_BLESS=1 cargo test -p poolscope --lib"
    );
}
