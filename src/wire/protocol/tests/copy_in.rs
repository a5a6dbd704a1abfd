//! COPY IN, during which the server ignores the `Sync`s that end other requests.

use super::busy_states;

#[test]
fn copy_in_by_a_simple_query_is_one_request() {
    for (lines, busy) in [
        // As psql does it; failed by the client, by the server, by another message than data.
        (&[">Q", "<G", ">d", ">c", "<CZ", ">Q", "<CZ"][..], "bbbb-b-"),
        (&[">Q", "<G", ">df", "<EZ", ">S", "<Z"], "bbb---"),
        (&[">Q", "<G", ">d", "<EZ", ">dc", ">Q", "<CZ"], "bbb--b-"),
        (&[">Q", "<G", ">Q", "<EE"], "bbbb"),
        // A Sync or a Flush that the server ignores.
        (&[">Q", "<G", ">SHSd", ">c", "<CZ", ">Q", "<CZ"], "bbbb-b-"),
        (&[">QS", "<G", ">dc", "<CZ", ">Q", "<CZ"], "bbb-b-"),
        (&[">QSc", "<G", "<CZ", ">Q", "<CZ"], "bb-b-"),
        // A Sync that the server read only after the COPY had failed.
        (&[">QS", "<GE", "<Z", "<Z", ">Q", "<CZ"], "bb--b-"),
        // Two in one query; sent without waiting; both.
        (&[">Q", "<G", ">dc", "<CG", ">dc", "<CZ"], "bbbbb-"),
        (&[">Qdcdc", "<GCGC", "<Z", ">S", "<Z"], "bb---"),
        (&[">Qdc", "<GC", "<G", ">S", ">c", "<CZ", ">Q", "<CZ"], "bbbbb-b-"),
    ] {
        assert_eq!(busy_states(lines), busy, "{lines:?}");
    }
}

#[test]
fn extended_copy_in_is_answered_after_the_last_sync() {
    for (lines, busy) in [
        // As tokio-postgres does it: completed, aborted, failed.
        (&[">BES", "<2G", ">d", ">dcS", "<C", "<Z", ">S", "<Z"][..], "bbbbb---"),
        (&[">BES", "<2G", ">d", ">fS", "<E", "<Z", ">BES", "<2CZ"], "bbbbb-b-"),
        (&[">BES", "<2G", ">d", "<E", ">cS", "<Z", ">BES", "<2CZ"], "bbbbb-b-"),
        (&[">BES", "<2G", ">d", "<E", ">S", "<Z", ">BES", "<2CZ"], "bbbbb-b-"),
        // Failed before the server read the first Sync: two answers, whenever the client learns of it.
        (&[">BES", "<2GE", "<Z", ">cS", "<Z", ">BES", "<2CZ"], "bb---b-"),
        (&[">BES", "<2G", ">dcS", "<E", "<Z", "<Z", ">BES", "<2CZ"], "bbbb--b-"),
        (&[">BES", "<2G", ">dcSBES", "<E", "<Z", "<Z", "<2CZ", "<Z"], "bbbbbb-!"),
        (&[">BES", "<2G", ">BES", "<E", "<Z", "<2CZ", "<Z"], "bbbbb-!"),
        // Sent without waiting, with one Sync or two, or in part.
        (&[">BEdcS", "<2G", "<CZ", ">BES", "<2CZ"], "bb-b-"),
        (&[">BESdcS", "<2G", "<CZ", ">BES", "<2CZ"], "bb-b-"),
        (&[">BESdcSBES", "<2GCZ", "<2C", "<Z"], "bbb-"),
        (&[">BESdc", "<2G", ">S", "<CZ", ">BES", "<2CZ"], "bbb-b-"),
        (&[">BESSS", "<2G", ">SdcS", "<CZ", ">BES", "<2CZ"], "bbb-b-"),
        (&[">BESSdcS", "<2G", "<CZ", ">BES", "<2CZ"], "bb-b-"),
        // With Flush in place of the first Sync.
        (&[">BEH", "<2G", ">dcS", "<CZ", ">BES", "<2CZ"], "bbb-b-"),
        (&[">BEH", "<2G", ">SdcS", "<CZ", ">BES", "<2CZ"], "bbb-b-"),
        (&[">BEH", "<2G", ">P", "<E", ">S", "<Z"], "bbbbb-"),
        (&[">BEH", "<2G", ">S", "<E", "<Z", ">BES", "<2CZ"], "bbbb-b-"),
        // An end of data that the server did not ask for.
        (&[">PcBES", "<12G", ">dcS", "<CZ", ">BES", "<2CZ"], "bbb-b-"),
        // Two in one request.
        (&[">BEcBEcS", "<2GC", "<2GC", "<Z", ">BES", "<2CZ"], "bbb-b-"),
        (&[">BESdcBEdcS", "<2GC", "<2GC", "<Z"], "bbb-"),
        (&[">BES", "<2G", ">cBES", "<C2G", ">cS", "<CZ", ">S", "<Z"], "bbbbb---"),
        // Another request in place of the data, at which a server may end the session.
        (&[">BES", "<2G", ">Q", "<EZ", "<CZ"], "bbbb-"),
        (&[">BESQ", "<2G", "<EZ", "<CZ"], "bbb-"),
        // A `Sync` that was answered or ignored is not excused again.
        (&[">BES", "<2G", ">cS", "<CZ", "<Z"], "bbb-!"),
        (&[">BES", "<2G", ">cS", "<EZ", ">PS", "<1Z", "<Z"], "bbb-b-!"),
        // A request that does not ask for data.
        (&[">PS", "<G"], "b!"),
    ] {
        assert_eq!(busy_states(lines), busy, "{lines:?}");
    }
}
