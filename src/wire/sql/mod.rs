//! The text of queries: the effects of statements, the summary of a query, and its text without literals.

#[cfg(feature = "proxy")]
mod comment;
mod effects;
mod query_texts;
mod summary;
mod tokens;

#[cfg(feature = "proxy")]
pub(crate) use self::comment::{CommentNames, comment_of};
pub(crate) use self::effects::{EffectScanner, StatementEffects};
pub(crate) use self::query_texts::QueryRef;
pub(crate) use self::query_texts::QueryTexts;
pub(crate) use self::summary::summary;
