//! COPY IN: the only request that is not answered after its first `Sync`.

use super::ProtocolState;
use super::frames::ProtocolError;
use super::requests::{RequestEnd, RequestStart};

impl ProtocolState {
    /// The client sent the end of its data for a COPY IN.
    pub(super) fn copy_ended(&mut self) {
        if std::mem::take(&mut self.copying) {
            return;
        }
        match self.pending.back_mut() {
            // Sent before the server requested data. Each of its queries may be a COPY, and a `Query` may hold several.
            Some(last)
                if last.end == RequestEnd::SingleMessage
                    || (last.end == RequestEnd::Open && last.copy_ends < last.queries) =>
            {
                last.copy_ends = last.copy_ends.saturating_add(1);
            }
            _ => {
                let request = self.pending.open();
                if request.start == RequestStart::Empty {
                    request.start = RequestStart::CopyEnd;
                }
            }
        }
    }

    /// The client sent something else while the server expects data. The server then ends the session, unless the COPY
    /// had already failed: in that case it answers the `Sync` that was counted as ignored.
    #[inline]
    pub(super) fn copy_interrupted(&mut self) {
        if std::mem::take(&mut self.copying) {
            self.end_interrupted_copy();
        }
    }

    #[cold]
    fn end_interrupted_copy(&mut self) {
        if self.ignored_syncs > 0
            && let Some(request) = self.pending.front_mut()
            && request.end == RequestEnd::Open
        {
            request.end = RequestEnd::Sync;
            self.ignored_syncs -= 1;
        }
    }

    /// The server requests data, and ignores every `Sync` until the data ends.
    pub(super) fn copy_started(&mut self) -> Result<(), ProtocolError> {
        let Some(request) = self.pending.front_mut().filter(|request| request.queries > 0) else {
            return Err(ProtocolError::Unknown("CopyInResponse without a query"));
        };
        if request.copy_ends > 0 {
            // The client sent the data right after the query.
            request.copy_ends -= 1;
            return Ok(());
        }
        while self.pending.second().is_some_and(|next| next.start == RequestStart::Empty) {
            self.pending.pop_second();
            self.ignored_syncs = self.ignored_syncs.saturating_add(1);
        }
        let next = self.pending.second().copied();
        let Some(request) = self.pending.front_mut() else { return Ok(()) };
        match next.map(|next| next.start) {
            None => {
                self.copying = true;
                if request.end == RequestEnd::Sync {
                    request.end = RequestEnd::Open;
                    self.ignored_syncs = self.ignored_syncs.saturating_add(1);
                }
            }
            // The client has sent the data, and with it the end of the request.
            Some(RequestStart::CopyEnd) if request.end == RequestEnd::Sync => {
                self.ignored_syncs = self.ignored_syncs.saturating_add(1);
                if let Some(next) = self.pending.pop_second()
                    && let Some(request) = self.pending.front_mut()
                {
                    self.work.remove(&next);
                    self.work.remove(request);
                    request.end = next.end;
                    request.queries = request.queries.saturating_add(next.queries);
                    request.started = request.started.saturating_add(next.started);
                    request.copy_ends = next.copy_ends;
                    request.effects.add(next.effects);
                    self.work.add(request);
                }
            }
            // Anything but a `Sync` or the end of the data ends the session, or is answered if the COPY failed before.
            Some(_) => {}
        }
        Ok(())
    }
}
