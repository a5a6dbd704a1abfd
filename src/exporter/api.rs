//! The endpoints below `/api/v1`: they read the pools of a collector, or a recording.

use hyper::header::{CONNECTION, HeaderMap, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::{Events, ResponseBody};
use super::history_api::{HistoryApi, HistoryError};
use super::limits::{MAX_VIEWERS, RECORD_INTERVAL_SECONDS};
use super::pools_api::{PoolsApi, PoolsError};
use super::record_api::{RecordApi, RecordError};
use super::replay_api::ReplayApi;
use super::response::{JSON, failed, job_error, json_error, respond, with, with_retry_after};
use super::stream::{StreamApi, StreamError};

/// The last event that a reconnecting viewer has.
const LAST_EVENT_ID: &str = "last-event-id";

const EVENTS: &str = "text/event-stream";

/// The endpoints below `/api/v1`.
#[derive(Debug)]
pub(super) struct Api {
    source: Source,
    record: Option<RecordApi>,
}

/// What the endpoints read.
#[derive(Debug)]
enum Source {
    Pools { pools: PoolsApi, history: HistoryApi, stream: StreamApi },
    Recording(ReplayApi),
}

impl Api {
    /// Returns the endpoints for the pools of a collector.
    pub(super) fn live(pools: PoolsApi, history: HistoryApi, stream: StreamApi, record: Option<RecordApi>) -> Self {
        Self { source: Source::Pools { pools, history, stream }, record }
    }

    /// Returns the endpoints for a recording.
    pub(super) fn replay(replay: ReplayApi) -> Self {
        Self { source: Source::Recording(replay), record: None }
    }

    /// Ends all streams.
    pub(super) fn begin_shutdown(&self) {
        match &self.source {
            Source::Pools { stream, .. } => stream.begin_shutdown(),
            Source::Recording(replay) => replay.begin_shutdown(),
        }
    }

    /// Describes each pool all of whose connections are in use while checkouts wait.
    pub(super) fn exhausted(&self) -> Vec<String> {
        match &self.source {
            Source::Pools { pools, .. } => pools.exhausted(),
            Source::Recording(_) => Vec::new(),
        }
    }

    pub(super) async fn pools(&self, query: &str) -> Response<ResponseBody> {
        let listed = match &self.source {
            Source::Pools { pools, .. } => pools.list(query).await,
            Source::Recording(replay) => replay.pools(query),
        };
        match listed {
            Ok(json) => respond(StatusCode::OK, JSON, json),
            Err(PoolsError::Query(message)) => json_error(StatusCode::BAD_REQUEST, &message),
            Err(PoolsError::Job(error)) => job_error(&error, "the pools could not be listed"),
            Err(PoolsError::Encoding) => failed("the pools could not be listed"),
        }
    }

    pub(super) async fn history(&self, query: &str) -> Response<ResponseBody> {
        let read = match &self.source {
            Source::Pools { history, .. } => history.read(query).await,
            Source::Recording(replay) => replay.history(query),
        };
        match read {
            Ok(json) => respond(StatusCode::OK, JSON, json),
            Err(HistoryError::Query(message)) => json_error(StatusCode::BAD_REQUEST, &message),
            Err(HistoryError::Job(error)) => job_error(&error, "the history could not be read"),
            Err(HistoryError::Encoding) => failed("the history could not be read"),
        }
    }

    /// Responds to `HEAD` for the stream.
    #[allow(clippy::unused_self, reason = "as the other endpoints")]
    pub(super) fn stream_head(&self) -> Response<ResponseBody> {
        respond(StatusCode::OK, EVENTS, "")
    }

    pub(super) async fn stream(&self, query: &str, headers: &HeaderMap) -> Response<ResponseBody> {
        let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let opened: Result<Events, _> = match &self.source {
            Source::Pools { stream, .. } => stream.open(query, last).await,
            Source::Recording(replay) => replay.open(query, last),
        };
        match opened {
            Ok(events) => {
                let mut response = respond(StatusCode::OK, EVENTS, "");
                *response.body_mut() = ResponseBody::Events(events);
                // A connection whose stream has ended must not seem to be in use.
                with(response, CONNECTION, "close")
            }
            Err(StreamError::Query(message)) => json_error(StatusCode::BAD_REQUEST, &message),
            Err(StreamError::TooManyViewers) => {
                let message =
                    format!("too many viewers: {MAX_VIEWERS} streams are open; close one, or try again later");
                with_retry_after(json_error(StatusCode::SERVICE_UNAVAILABLE, &message))
            }
            Err(StreamError::Job(error)) => job_error(&error, "the stream could not be opened"),
        }
    }

    /// Returns whether incident files can be begun on request.
    pub(super) fn can_record(&self) -> bool {
        self.record.is_some()
    }

    /// Begins incident files.
    pub(super) fn record(&self, query: &str, headers: &HeaderMap) -> Response<ResponseBody> {
        let Some(record) = &self.record else {
            return json_error(StatusCode::NOT_FOUND, "recording on request is not enabled");
        };
        match record.record(query, headers) {
            Ok(json) => respond(StatusCode::ACCEPTED, JSON, json),
            Err(error) => {
                let message = error.to_string();
                match error {
                    RecordError::OtherSite => json_error(StatusCode::FORBIDDEN, &message),
                    RecordError::Query(_) => json_error(StatusCode::BAD_REQUEST, &message),
                    RecordError::NoPool => json_error(StatusCode::NOT_FOUND, &message),
                    RecordError::TooSoon => {
                        let response = json_error(StatusCode::TOO_MANY_REQUESTS, &message);
                        with(response, RETRY_AFTER, RECORD_INTERVAL_SECONDS)
                    }
                    RecordError::Busy => with_retry_after(json_error(StatusCode::SERVICE_UNAVAILABLE, &message)),
                }
            }
        }
    }
}
