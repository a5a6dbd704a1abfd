//! Suggestions for misspelled names.

const MAX_NAME_BYTES: usize = 100;

/// Returns the candidate most similar to `name`, ignoring case, if at most a third of its characters differ.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is as long, and the comparison takes time in proportion to the length.
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_name_is_corrected() {
        let names = ["pool_size", "max_overflow", "pre_ping", "pre_ping_idle"];
        assert_eq!(nearest("poolsize", names), Some("pool_size"));
        assert_eq!(nearest("PRE_PING", names), Some("pre_ping"));
        assert_eq!(nearest("max_overfow", names), Some("max_overflow"));
    }

    #[test]
    fn different_word_has_no_suggestion() {
        assert_eq!(nearest("colour", ["pool_size", "pre_ping"]), None);
        assert_eq!(nearest("", ["pool_size", "pre_ping"]), None);
    }
}
