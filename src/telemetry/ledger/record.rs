//! The reader of events that keeps the accounts.

use super::Ledger;
use super::books::InFlight;
use super::telling::SpanUpdate;
use crate::event::{ConnectionState, ErrorPhase, Event, Phase};
use crate::telemetry::clock::nanos;
use crate::telemetry::requests::RequestWarning;
use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::trace;

impl Ledger {
    /// The reader of events. Inlined, so that an event made on the spot is matched by the compiler.
    #[inline(always)]
    pub(crate) fn record(&self, event: Event<'_>) {
        match event {
            Event::HandingOut { stats, site, task } => {
                stats.set_holder(site, task);
                stats.set_trace(trace::entered());
            }
            Event::CheckoutServed { stats, operation, at } => {
                stats.set_used(operation, at);
                stats.count_served(operation);
            }
            Event::ConnectionReturned { stats, operation, since, at } => {
                // What was held is counted from here on, not twice.
                stats.set_used(operation, at);
                stats.count_use(operation, at.since(since));
                if stats.is_traced() {
                    self.keep_use(stats, at.since(since));
                }
            }
            Event::TendingStarted { stats, operation, at } => stats.set_maintenance(operation, at),
            Event::TendingFinished { stats, operation, since, at } => {
                stats.set_maintenance(operation, at);
                stats.count_maintenance(operation, at.since(since));
            }
            Event::SuspectReturned { stats, .. } => {
                stats.suspect(false);
            }
            Event::ConnectionIdle { stats, at } => {
                stats.set_idle(at);
                stats.release_trace();
            }
            Event::OperationFinished { operation, outcome, took, trace } => {
                let durations = self.durations[operation.index()].get_or_init(Box::default);
                durations[outcome.index()].get_or_init(Box::default).observe(nanos(took), trace);
            }
            Event::QueryTraced { query, took, trace } => self.query_exemplars[query.index()].keep(nanos(took), trace),
            Event::RequestHeld { kind, .. } => self.requests().count_warning(kind, RequestWarning::HeldElsewhere),
            Event::RequestManyCheckouts { kind, .. } => {
                self.requests().count_warning(kind, RequestWarning::ManyCheckouts);
            }
            Event::PoolOpened
            | Event::PoolClosing
            | Event::OperationsFull { .. }
            | Event::RoutesFull { .. }
            | Event::QueriesFull { .. } => {}
            Event::CheckoutWaiting { .. }
            | Event::PhaseEntered { .. }
            | Event::CheckoutFinished { .. }
            | Event::CheckoutRefused { .. }
            | Event::ConnectionCreating { .. }
            | Event::ConnectionCreated { .. }
            | Event::ConnectionError { .. }
            | Event::ConnectionDirty { .. }
            | Event::QueryFailed { .. }
            | Event::QueryEnded { .. }
            | Event::WireLost { .. }
            | Event::Retrying { .. }
            | Event::RetryRecovered { .. }
            | Event::RetryExhausted { .. }
            | Event::ConnectingSuspended { .. }
            | Event::ConnectingResumed { .. }
            | Event::UnpooledConnecting { .. }
            | Event::UnpooledOpened { .. }
            | Event::UnpooledEnded { .. }
            | Event::ConnectionClosed { .. } => self.record_slow(event),
        }
    }

    /// Keeps a use as an example: it was in the trace in which the connection was checked out.
    #[cold]
    fn keep_use(&self, stats: &ConnectionStats, nanos: u64) {
        if let Some(trace) = stats.trace_ids() {
            self.use_exemplars.keep(nanos, trace);
        }
    }

    #[cold]
    #[inline(never)]
    fn record_slow(&self, event: Event<'_>) {
        // Spans are made before the lock is taken, and told of things when it is free again.
        let mut trace = self.trace_of(event);
        let mut telling = None;
        let mut books = self.books();
        match event {
            Event::CheckoutWaiting { ticket, operation, call_site, task, started, phase } => {
                let span = trace.as_ref().and_then(|trace| trace.span.as_ref());
                if let Some(span) = span.filter(|_| phase == Phase::Queue) {
                    let (span, held) = (span.span().clone(), books.held(&self.operations, started));
                    telling = Some(Box::new(SpanUpdate::Queueing { span, operation, held }));
                }
                let (phase_since, own, trace) = (started, None, trace.take());
                let checkout = InFlight { operation, call_site, started, phase, phase_since, task, own, trace };
                ticket.set(Some(books.begin(checkout)));
            }
            Event::PhaseEntered { ticket, phase, at } => {
                let quiet = books.enter_phase(ticket, phase, at);
                let span = if phase == Phase::Queue { books.span_of(ticket) } else { None };
                let queues = phase == Phase::Queue && (quiet.is_some() || span.is_some());
                let held = queues.then(|| books.held(&self.operations, at));
                if let Some(quiet) = quiet {
                    telling = Some(Box::new(SpanUpdate::Opens { ticket, quiet, held }));
                } else if let (Some(span), Some(held)) = (span, held) {
                    let operation = books.operation_of(ticket);
                    telling = Some(Box::new(SpanUpdate::Queueing { span, operation, held }));
                }
            }
            Event::CheckoutFinished { ticket, stats, outcome, code, at } => {
                if let Some(checkout) = books.finish(ticket, outcome, stats, at) {
                    if let Some(stats) = stats {
                        stats.set_used(checkout.operation, at);
                    }
                    if checkout.trace.is_some() {
                        telling = Some(SpanUpdate::that_it_ended(checkout, outcome, code, at));
                    }
                }
            }
            Event::CheckoutRefused { operation, outcome, code, at, .. } => {
                books.refuse(operation, outcome);
                if let Some(span) = trace.take().and_then(|trace| trace.span) {
                    let span = Some(span);
                    telling = Some(Box::new(SpanUpdate::Ended { span, quiet: None, outcome, code, at }));
                }
            }
            Event::ConnectionCreating { stats } => books.open(stats),
            Event::ConnectionCreated { stats, took } => {
                books.create_time.observe(nanos(took));
                if let Some(trace) = &trace {
                    books.create_exemplars.keep(nanos(took), trace.within.ids());
                }
                let unpacked_state = stats.unpacked_state();
                if unpacked_state.state == ConnectionState::Creating {
                    stats.set_used(unpacked_state.operation, self.clock.now());
                }
            }
            Event::ConnectionError { phase, code, .. } => {
                if phase == ErrorPhase::Connect {
                    books.connect_failed_at = self.clock.now();
                }
                *books.errors.entry((phase, code)).or_insert(0) += 1;
            }
            Event::ConnectionDirty { stats, operation, dirt, found_by } => {
                *books.dirty.entry((operation, dirt)).or_insert(0) += 1;
                let opens = found_by.and_then(|ticket| Some((ticket, books.quiet(ticket)?)));
                let found_by = found_by.and_then(|ticket| books.span_of(ticket));
                let cause = stats.trace();
                telling = Some(Box::new(SpanUpdate::Dirty { cause, operation, dirt, found_by, opens }));
            }
            Event::QueryFailed { operation, code } => books.count_query_error(operation, code),
            Event::QueryEnded { query, code, took, trace } => books.failed_queries.count(query, code, took, trace),
            Event::WireLost { .. } => books.wires_lost += 1,
            Event::Retrying { operation, code, attempt, pause } => {
                books.retries.count_retry(operation, code);
                telling = Some(Box::new(SpanUpdate::Retrying { code, attempt, pause }));
            }
            Event::RetryRecovered { operation, .. } => books.retries.count_recovered(operation),
            Event::RetryExhausted { operation, code, reason, .. } => {
                books.retries.count_exhausted(operation, reason, code);
            }
            Event::ConnectingSuspended { .. } => {
                books.connect_failed_at = self.clock.now();
                books.suspended_since = Some(books.connect_failed_at);
            }
            Event::ConnectingResumed { .. } => books.suspended_since = None,
            Event::UnpooledConnecting { place, operation, at } => place.set(Some(books.unpooled.begin(operation, at))),
            Event::UnpooledOpened { place, at, .. } => books.unpooled.open(place, at),
            Event::UnpooledEnded { place, at, .. } => books.unpooled.end(place, at),
            Event::ConnectionClosed { stats, reason } => books.close(stats, reason, self.clock.now()),
            Event::PoolOpened
            | Event::PoolClosing
            | Event::HandingOut { .. }
            | Event::CheckoutServed { .. }
            | Event::TendingStarted { .. }
            | Event::TendingFinished { .. }
            | Event::SuspectReturned { .. }
            | Event::ConnectionReturned { .. }
            | Event::ConnectionIdle { .. }
            | Event::QueryTraced { .. }
            | Event::OperationFinished { .. }
            | Event::RequestHeld { .. }
            | Event::RequestManyCheckouts { .. }
            | Event::RoutesFull { .. }
            | Event::OperationsFull { .. }
            | Event::QueriesFull { .. } => {}
        }
        // Whatever the event moved, before anyone else can move it.
        self.hints.update(&books);
        drop(books);
        if let Some(telling) = telling {
            self.tell(*telling);
        }
    }
}
