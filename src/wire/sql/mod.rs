//! The text of queries: the effects of statements, the summary of a query, and its text without literals.

mod effects;
mod query_texts;
mod summary;
mod tokens;

pub(crate) use self::effects::{EffectScanner, StatementEffects};
pub(crate) use self::query_texts::QueryRef;
pub(crate) use self::query_texts::QueryTexts;
pub(crate) use self::summary::summary;
