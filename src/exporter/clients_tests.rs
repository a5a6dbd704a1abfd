use std::time::Duration;

use super::*;

fn admit_one(clients: &Clients, peer: SocketAddr) -> Admission {
    clients.admit(peer).unwrap()
}

fn peer(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(number / 250).unwrap(), u8::try_from(number % 250).unwrap()], 1000))
}

/// Admits connections of different peers, a millisecond apart.
async fn admit(clients: &Clients, count: usize) -> Vec<Admission> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(admit_one(clients, peer(number)));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    all
}

async fn is_evicted(admission: &Admission) -> bool {
    tokio::time::timeout(Duration::ZERO, admission.client.overdue()).await == Ok(CloseCause::Evicted)
}

/// Begins an authorized request.
fn begin(admission: &Admission) -> &Client {
    admission.client.begin_request();
    admission.client.authorized();
    &admission.client
}

#[tokio::test(start_paused = true)]
async fn longest_idle_is_closed_and_unauthorized_ones_first() {
    let clients = Clients::default();
    let admitted = admit(&clients, MAX_CONNECTIONS).await;
    for (number, admission) in admitted.iter().enumerate() {
        // All have been served, the last two without authorization.
        admission.client.begin_request();
        if number < MAX_CONNECTIONS - 2 {
            admission.client.authorized();
        }
        admission.client.begin_response();
        admission.client.flushed();
    }
    let new = admit_one(&clients, peer(900));
    assert!(new.evicts && !new.client.is_reserved() && is_evicted(&admitted[MAX_CONNECTIONS - 2]).await);
    begin(&new);
    let _second = admit_one(&clients, peer(901));
    assert!(is_evicted(&admitted[MAX_CONNECTIONS - 1]).await);
    assert!(!is_evicted(&admitted[0]).await);
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_never_closed() {
    let clients = Clients::default();
    let admitted = admit(&clients, MAX_CONNECTIONS).await;
    for admission in &admitted {
        begin(admission);
    }
    let mut reserved = Vec::new();
    for number in 0..RESERVED_CONNECTIONS {
        let admission = admit_one(&clients, peer(900 + number));
        assert!(admission.client.is_reserved() && !admission.evicts);
        begin(&admission);
        reserved.push(admission);
    }
    assert!(tokio::time::timeout(Duration::from_secs(1), clients.has_room()).await.is_err());
    // A client that does not read its response gives way.
    admitted[7].client.begin_response();
    admitted[7].client.blocked();
    clients.has_room().await;
    assert!(!admit_one(&clients, peer(800)).client.is_reserved() && is_evicted(&admitted[7]).await);
}

/// The wait for room ends once a connection may be closed, though none was.
#[tokio::test(start_paused = true)]
async fn acceptor_is_woken_by_each_phase_that_gives_way() {
    type Change = fn(&Client);
    let changes: [(&str, Change); 3] = [
        ("idle", |client| {
            client.begin_response();
            client.flushed();
        }),
        ("blocked", |client| {
            client.begin_response();
            client.blocked();
        }),
        ("idle after a later request", |client| {
            client.begin_request();
            client.authorized();
            client.begin_response();
            client.flushed();
        }),
    ];
    for (name, change) in changes {
        let clients = Clients::default();
        let mut all = Vec::new();
        for number in 0..MAX_CONNECTIONS + RESERVED_CONNECTIONS {
            all.push(admit_one(&clients, peer(number)));
            begin(&all[number]);
        }
        let mut room = std::pin::pin!(clients.has_room());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut room).await.is_err(), "{name}");
        change(&all[3].client);
        assert!(tokio::time::timeout(Duration::from_secs(1), room).await.is_ok(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn verification_of_a_stranger_gives_way() {
    let clients = Clients::default();
    let known = admit_one(&clients, peer(0));
    begin(&known).begin_response();
    known.client.flushed();
    // Its next request is verified too.
    known.client.begin_request();
    let mut strangers = Vec::new();
    for number in 1..MAX_CONNECTIONS {
        tokio::time::advance(Duration::from_millis(1)).await;
        strangers.push(admit_one(&clients, peer(number)));
        strangers[number - 1].client.begin_request();
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    let scrape = admit_one(&clients, peer(800));
    assert!(scrape.evicts && !scrape.client.is_reserved() && is_evicted(&strangers[0]).await);
    // The newcomer is not the next to be closed, though its request has not arrived.
    let _other = admit_one(&clients, peer(801));
    assert!(is_evicted(&strangers[1]).await && !is_evicted(&scrape).await && !is_evicted(&known).await);
    // What is worked on stays.
    strangers[2].client.authorized();
    let _third = admit_one(&clients, peer(802));
    assert!(is_evicted(&strangers[3]).await && !is_evicted(&strangers[2]).await);
}

#[tokio::test(start_paused = true)]
async fn each_peer_closes_its_own_connections_first() {
    let clients = Clients::default();
    let other = admit_one(&clients, peer(1));
    tokio::time::advance(Duration::from_secs(1)).await;
    let address = |host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 7, 0, 0, 0, host], 1));
    let own: Vec<_> =
        (0..MAX_CONNECTIONS_PER_PEER).map(|host| admit_one(&clients, address(u16::try_from(host).unwrap()))).collect();
    let new = admit_one(&clients, address(999));
    assert!(new.evicts && is_evicted(&own[0]).await && !is_evicted(&other).await);
    assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
}

/// A peer whose connections all have requests under way uses no more than the reserve, also while others are idle.
#[tokio::test(start_paused = true)]
async fn reserve_bounds_a_peer_at_its_limit() {
    let clients = Clients::default();
    let idle = admit_one(&clients, peer(1));
    begin(&idle).begin_response();
    idle.client.flushed();
    let mut own = Vec::new();
    while let Some(admission) = clients.admit(peer(2)) {
        assert_eq!(admission.client.is_reserved(), own.len() >= MAX_CONNECTIONS_PER_PEER);
        begin(&admission);
        own.push(admission);
    }
    assert_eq!(own.len(), MAX_CONNECTIONS_PER_PEER + RESERVED_CONNECTIONS);
    // Others have room.
    clients.has_room().await;
    let other = admit_one(&clients, peer(3));
    assert!(!other.client.is_reserved() && !other.evicts && !is_evicted(&idle).await);
    // One of the reserve that has ended gives way to another of the reserve, and a usual one to a usual one.
    for (number, is_reserved) in [(MAX_CONNECTIONS_PER_PEER, true), (0, false)] {
        own[number].client.begin_response();
        own[number].client.flushed();
        let next = admit_one(&clients, peer(2));
        assert!(next.evicts && next.client.is_reserved() == is_reserved && is_evicted(&own[number]).await);
        begin(&next);
        own.push(next);
    }
    assert!(clients.admit(peer(2)).is_none());
}

#[tokio::test(start_paused = true)]
async fn head_of_a_request_has_a_timeout() {
    let clients = Clients::default();
    let admission = admit_one(&clients, peer(1));
    let begun = Instant::now();
    assert_eq!(admission.client.overdue().await, CloseCause::NoRequest);
    assert_eq!(begun.elapsed(), FIRST_HEAD_TIMEOUT);

    let client = begin(&admission);
    client.begin_response();
    client.flushed();
    assert!(tokio::time::timeout(FIRST_HEAD_TIMEOUT * 100, client.overdue()).await.is_err(), "idle");
    client.received();
    let begun = Instant::now();
    assert_eq!(client.overdue().await, CloseCause::NoRequest);
    assert_eq!(begun.elapsed(), FIRST_HEAD_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn stream_is_closed_only_while_it_is_not_read() {
    let clients = Clients::default();
    let streaming = admit_one(&clients, peer(0));
    let client = begin(&streaming);
    client.authorized();
    client.begin_stream();
    // Each of its events is written completely.
    client.flushed();
    assert_eq!(client.rank(), None);
    client.blocked();
    assert_eq!(client.rank().map(|(rank, _)| rank), Some(2));
    client.flushed();
    assert_eq!(client.rank(), None);
    // The connection is closed after a stream; if it were used again, it would not remain a stream.
    client.begin_request();
    client.begin_response();
    client.flushed();
    assert_eq!(client.rank().map(|(rank, _)| rank), Some(1));
}
