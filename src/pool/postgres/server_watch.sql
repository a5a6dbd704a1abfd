SET LOCAL statement_timeout = '4s';
-- The state of the server: a row for each application and state, each with the values of the whole server.
WITH other_kind AS (
    SELECT pid FROM pg_catalog.pg_stat_get_wal_senders()
    UNION ALL
    SELECT pid FROM pg_catalog.pg_stat_get_subscription(NULL) WHERE pid IS NOT NULL
), backend AS MATERIALIZED (
    SELECT datid, pid, application_name, state, backend_type IS NULL AS hidden, wait_event_type, xact_start, state_change
    FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend'
       -- The type of a backend may be hidden; then it is a client's if it has both a database and a role. (So has a query's
       -- parallel worker, which cannot be told apart.)
       OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL
           AND pid NOT IN (SELECT pid FROM other_kind))
), reserved AS (
    SELECT pg_catalog.current_setting('superuser_reserved_connections')::int8
         -- Since PostgreSQL 16.
         + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int8 AS slots
), server AS (
    SELECT pg_catalog.current_setting('max_connections')::int8 - reserved.slots AS slots,
           (SELECT pg_catalog.count(*) FROM backend) AS taken,
           -- Negative: no limit.
           CASE WHEN database.datconnlimit >= 0 THEN database.datconnlimit::int8 END AS database_slots,
           (SELECT pg_catalog.count(*) FROM backend WHERE backend.datid = database.oid) AS database_taken,
           (SELECT pg_catalog.max(pg_catalog.clock_timestamp() - prepared.prepared)
            FROM pg_catalog.pg_prepared_xact() AS prepared) AS prepared
    FROM reserved, pg_catalog.pg_database AS database
    WHERE database.datname = pg_catalog.current_database()
)
SELECT pg_catalog.current_setting('server_version') AS version,
       pg_catalog.pg_is_in_recovery() AS standby,
       least(server.slots, server.database_slots) AS slots,
       greatest(0, least(server.slots - server.taken, server.database_slots - server.database_taken)) AS slots_left,
       coalesce(extract(epoch FROM server.prepared), 0) AS prepared_seconds,
       backend.application_name,
       CASE WHEN backend.hidden THEN 'hidden' ELSE coalesce(backend.state, 'starting') END AS state,
       pg_catalog.count(*) AS backends,
       pg_catalog.count(*) FILTER (WHERE backend.wait_event_type = 'Lock') AS lock_waiters,
       coalesce(extract(epoch FROM pg_catalog.max(pg_catalog.clock_timestamp() - backend.xact_start)
           FILTER (WHERE backend.pid <> pg_catalog.pg_backend_pid())), 0) AS transaction_seconds,
       coalesce(extract(epoch FROM pg_catalog.max(pg_catalog.clock_timestamp() - backend.state_change)
           FILTER (WHERE backend.state LIKE 'idle in transaction%')), 0) AS idle_in_transaction_seconds
FROM server, backend
GROUP BY server.slots, server.taken, server.database_slots, server.database_taken, server.prepared,
         backend.application_name, backend.hidden, backend.state;
-- Who blocks whom, for the queries that have waited for a lock longest. pg_blocking_pids is called for those only, because
-- it locks the lock table.
SELECT waiter.pid AS blocked_pid,
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - waiter.query_start), 0) AS blocked_seconds,
       blocking.pid AS blocker_pid,
       coalesce(blocker.application_name, '') AS application_name,
       coalesce(blocker.usename, '') AS usename,
       CASE WHEN blocker.backend_type IS NULL AND blocker.pid IS NOT NULL THEN 'hidden'
            ELSE coalesce(blocker.state, 'starting') END AS state,
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - blocker.state_change), 0) AS state_seconds
FROM (SELECT pid, query_start FROM pg_catalog.pg_stat_activity
      WHERE wait_event_type = 'Lock' ORDER BY query_start LIMIT 20) AS waiter
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiter.pid)) AS blocking(pid)
LEFT JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid = blocking.pid
ORDER BY waiter.query_start
LIMIT 50;
-- The backends with the application_name of this connection, by whether they connect from the same address. Row by row, the
-- answer would be long.
SELECT pg_catalog.string_agg(activity.pid::text, ',') AS own_pids,
       activity.client_addr IS NOT DISTINCT FROM pg_catalog.inet_client_addr() AS same_address,
       pg_catalog.pg_backend_pid() AS backend
FROM pg_catalog.pg_stat_activity AS activity
WHERE activity.application_name = pg_catalog.current_setting('application_name')
  AND activity.datid IS NOT NULL AND activity.usesysid IS NOT NULL
  AND coalesce(activity.backend_type, 'client backend') = 'client backend'
GROUP BY 2
