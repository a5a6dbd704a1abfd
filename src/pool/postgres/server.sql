-- What the server says of itself: a row for each application and state, each with what is the whole server's.
WITH backend AS MATERIALIZED (
    SELECT datid, application_name, state, wait_event_type, xact_start, state_change
    FROM pg_catalog.pg_stat_activity
    WHERE backend_type = 'client backend'
       -- What a backend is may be hidden; then it is a client's if it has both a database and a role.
       OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL)
), reserved AS (
    SELECT pg_catalog.current_setting('superuser_reserved_connections')::int8
         -- Since PostgreSQL 16.
         + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int8 AS slots
), server AS (
    SELECT pg_catalog.current_setting('max_connections')::int8 - reserved.slots AS slots,
           (SELECT pg_catalog.count(*) FROM backend) AS taken,
           nullif(database.datconnlimit, -1)::int8 AS database_slots,
           (SELECT pg_catalog.count(*) FROM backend WHERE backend.datid = database.oid) AS database_taken
    FROM reserved, pg_catalog.pg_database AS database
    WHERE database.datname = pg_catalog.current_database()
)
SELECT pg_catalog.current_setting('server_version') AS version,
       pg_catalog.pg_is_in_recovery() AS standby,
       least(server.slots, server.database_slots) AS slots,
       greatest(0, least(server.slots - server.taken, server.database_slots - server.database_taken)) AS slots_left,
       backend.application_name,
       backend.state,
       pg_catalog.count(*) AS backends,
       pg_catalog.count(*) FILTER (WHERE backend.wait_event_type = 'Lock') AS lock_waiters,
       coalesce(extract(epoch FROM pg_catalog.max(pg_catalog.clock_timestamp() - backend.xact_start)), 0)
           AS transaction_seconds,
       coalesce(extract(epoch FROM pg_catalog.max(pg_catalog.clock_timestamp() - backend.state_change)
           FILTER (WHERE backend.state LIKE 'idle in transaction%')), 0) AS idle_in_transaction_seconds
FROM server, backend
GROUP BY server.slots, server.taken, server.database_slots, server.database_taken, backend.application_name, backend.state
