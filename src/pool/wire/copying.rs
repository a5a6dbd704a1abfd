//! COPY IN, the one request that is not answered to the `Sync` behind it.

use super::conversation::Conversation;
use super::frames::OutOfStep;
use super::requests::{End, Start, open};

impl Conversation {
    /// The client writes no more data for a COPY IN.
    pub(super) fn end_data(&mut self) {
        if std::mem::take(&mut self.copying) {
            return;
        }
        match self.outstanding.back_mut() {
            // Written without waiting for the server to ask. Each of its queries may be a COPY, and a query of its own
            // may be several.
            Some(last) if last.end == End::Own || (last.end == End::Open && last.data_ends < last.queries) => {
                last.data_ends = last.data_ends.saturating_add(1);
            }
            _ => {
                let request = open(&mut self.outstanding);
                if request.start == Start::Nothing {
                    request.start = Start::DataEnd;
                }
            }
        }
    }

    /// The client writes something else while data is wanted. The server ends the session over it, unless the COPY has
    /// failed before: then what was taken for ignored will be answered.
    pub(super) fn interrupt(&mut self) {
        if std::mem::take(&mut self.copying)
            && self.ignored > 0
            && let Some(request) = self.outstanding.front_mut()
            && request.end == End::Open
        {
            request.end = End::Sync;
            self.ignored -= 1;
        }
    }

    /// The server takes data now, and ignores each `Sync` until the data ends.
    pub(super) fn copy_in(&mut self) -> Result<(), OutOfStep> {
        let Some(request) = self.outstanding.front_mut().filter(|request| request.queries > 0) else {
            return Err(OutOfStep("a COPY that nobody asked for"));
        };
        if request.data_ends > 0 {
            // The data was written right behind the query.
            request.data_ends -= 1;
            return Ok(());
        }
        while self.outstanding.get(1).is_some_and(|next| next.start == Start::Nothing) {
            self.outstanding.remove(1);
            self.ignored = self.ignored.saturating_add(1);
        }
        let next = self.outstanding.get(1).copied();
        let Some(request) = self.outstanding.front_mut() else { return Ok(()) };
        match next.map(|next| next.start) {
            None => {
                self.copying = true;
                if request.end == End::Sync {
                    request.end = End::Open;
                    self.ignored = self.ignored.saturating_add(1);
                }
            }
            // The data was written, and what ends the request with it.
            Some(Start::DataEnd) if request.end == End::Sync => {
                self.ignored = self.ignored.saturating_add(1);
                if let Some(next) = self.outstanding.remove(1)
                    && let Some(request) = self.outstanding.front_mut()
                {
                    self.work.remove(&next);
                    self.work.remove(request);
                    request.end = next.end;
                    request.queries = request.queries.saturating_add(next.queries);
                    request.begun = request.begun.saturating_add(next.begun);
                    request.data_ends = next.data_ends;
                    request.deeds.add(next.deeds);
                    self.work.add(request);
                }
            }
            // What is neither a Sync nor the end of the data ends the session, or is answered if the COPY fails before.
            Some(_) => {}
        }
        Ok(())
    }
}
