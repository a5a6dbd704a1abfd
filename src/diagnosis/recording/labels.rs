//! How values by label are written: as objects with a member per label, so that a new label does not move the others.

/// Defines a module for `serde(with)`: an array of numbers by label as an object without the members that are 0.
macro_rules! by_label {
    ($module:ident, $label:ident) => {
        pub(in super::super) mod $module {
            use std::collections::BTreeMap;

            use serde::{Deserialize, Deserializer, Serializer};

            use crate::labels::$label;

            pub(in super::super::super) fn serialize<S: Serializer>(
                values: &[f64; $label::COUNT],
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let labelled = $label::ALL.iter().zip(values).filter(|(_, value)| **value != 0.0);
                serializer.collect_map(labelled.map(|(label, value)| (label.as_str(), value)))
            }

            pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<[f64; $label::COUNT], D::Error> {
                let labelled = BTreeMap::<String, f64>::deserialize(deserializer)?;
                let value = |label: $label| labelled.get(label.as_str()).copied().unwrap_or_default();
                Ok(std::array::from_fn(|index| value($label::ALL[index])))
            }
        }
    };
}

by_label!(activity, Activity);
by_label!(close_reason, CloseReason);
by_label!(outcome, Outcome);
by_label!(phase, Phase);

/// The buckets of a histogram, as an object from the upper bound in seconds to the number in the bucket.
pub(in super::super) mod buckets {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::super::interval::BUCKETS;
    use crate::telemetry::BOUNDS_SECONDS;

    fn bound(bucket: usize) -> String {
        BOUNDS_SECONDS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string)
    }

    pub(in super::super::super) fn serialize<S: Serializer>(
        values: &[f64; BUCKETS],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let filled = values.iter().enumerate().filter(|(_, value)| **value != 0.0);
        serializer.collect_map(filled.map(|(bucket, value)| (bound(bucket), value)))
    }

    /// A bound that this version does not have counts as the next higher one.
    pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[f64; BUCKETS], D::Error> {
        let mut values = [0.0; BUCKETS];
        for (bound, value) in BTreeMap::<String, f64>::deserialize(deserializer)? {
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            values[BOUNDS_SECONDS.partition_point(|known| *known < bound)] += value;
        }
        Ok(values)
    }
}

/// Counts by error code, as an object from the code to the number.
pub(in super::super) mod errors {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::super::interval::MAX_ERROR_CODES;
    use crate::labels::ErrorCode;

    #[allow(clippy::ptr_arg, reason = "the signature is serde's")]
    pub(in super::super::super) fn serialize<S: Serializer>(
        counts: &Vec<(ErrorCode, f64)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(counts.iter().map(|(code, count)| (code.as_str(), count)))
    }

    /// Codes that are no labels count as `other`, and what has the same code is summed. The most frequent ones are kept, as
    /// when they are recorded.
    pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(ErrorCode, f64)>, D::Error> {
        let mut sums: BTreeMap<ErrorCode, f64> = BTreeMap::new();
        for (code, count) in BTreeMap::<String, f64>::deserialize(deserializer)? {
            *sums.entry(ErrorCode::new(&code)).or_default() += count;
        }
        let mut counts: Vec<_> = sums.into_iter().collect();
        counts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        counts.truncate(MAX_ERROR_CODES);
        counts.shrink_to_fit();
        Ok(counts)
    }
}

pub(in super::super) mod error_code {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::labels::ErrorCode;

    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub(in super::super::super) fn serialize<S: Serializer>(
        code: &Option<ErrorCode>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        code.as_ref().map(ErrorCode::as_str).serialize(serializer)
    }

    pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ErrorCode>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(|code| ErrorCode::new(&code)))
    }
}

pub(in super::super) mod backend_state {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::labels::BackendState;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(in super::super::super) fn serialize<S: Serializer>(
        state: &BackendState,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.as_str())
    }

    pub(in super::super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BackendState, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = BackendState::ALL.iter().find(|state| state.as_str() == name);
        Ok(known.copied().unwrap_or(BackendState::Other))
    }
}
