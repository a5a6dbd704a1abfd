//! Names, texts and statements that nobody should have chosen.

/// Returns the name of an operation for an index. All are different, up to their length.
pub(crate) fn name(index: usize) -> String {
    match index % 10 {
        0 => format!("{index}{}", random_text(index)),
        1 => format!("\\\"{index}\\n\"\\\\\n\r\n'\"`"),
        2 => format!("\0\u{1}\u{1b}[31m{index}\u{7f}\u{9b}\u{85}"),
        3 => format!("\u{202e}🦀👩‍👩‍👧{index}\u{2028}\u{feff}"),
        4 => format!("{index}{}", "é".repeat(5_000)),
        // The only one that is empty, of a hundred thousand.
        5 if index == 5 => String::new(),
        5 => format!("{index}\"}} 1\n# TYPE poolscope_checkouts_total gauge\n# EOF\n"),
        6 => format!("{{{{template}}}}${{{index}}}%n%s<script>alert({index})</script>"),
        7 => format!("Z̸̧̢a̵͝l̷g̶o̵{index}"),
        8 => format!(" {index}\t "),
        _ => format!("other{index}"),
    }
}

/// Returns random bytes as text.
pub(crate) fn random_text(seed: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let bytes: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns statements that the server, or the driver, mostly refuses. None changes anything.
pub(crate) fn statements(seed: usize) -> String {
    match seed % 8 {
        0 => random_text(seed),
        1 => format!("SELECT 'unterminated {seed}"),
        2 => "/*".repeat(1 + seed % 1_000),
        3 => format!("SELECT '{}'", "x".repeat(seed % 100_000)),
        4 => format!("{}SELECT {seed};;", ";".repeat(seed % 1_000)),
        5 => format!("SELECT 1 FROM \"\u{202e}{}\"", name(seed).replace(['"', '\0'], "")),
        6 => format!("/*operation='{}'*/ -- \r\nselect 1", name(seed).replace("*/", "").replace('\0', "")),
        _ => format!("BEGIN; SELECT {seed}; ROLLBACK; SELECT broken"),
    }
}

/// Returns a statement that fails with a message and an SQLSTATE of the application.
pub(crate) fn raise(seed: usize) -> String {
    let message = name(seed).replace(['\0', '$'], "").replace('\'', "''").replace('\\', "/");
    format!("DO $$ BEGIN RAISE NOTICE '%', '{message}'; {} END $$", error(&message, &format!("S{:04}", seed % 5_000)))
}

/// Returns a statement that fails with this SQLSTATE.
pub(crate) fn fail_with(sqlstate: &str) -> String {
    format!("DO $$ BEGIN {} END $$", error("scripted", sqlstate))
}

fn error(message: &str, sqlstate: &str) -> String {
    format!("RAISE EXCEPTION USING MESSAGE = '{message}', ERRCODE = '{sqlstate}';")
}
