# Keeps a private PostgreSQL, and outlives whoever ordered it only to clean up.
#
# Usage: sh -c THIS poolscope-server BIN PARENT...
#
# Standard input is a pipe whose other end the owner holds: its end, whatever brought it about, means
# "stop the server, remove its directory". Lines on it are orders: `start`, or, while the server runs, the
# name of a signal for it. Lines on standard output tell what happened.

exec 3<&0 </dev/null
# Only the pipe ends this script. Without PIPE here, a report to an owner that died would end it at once.
trap '' HUP INT TERM PIPE
umask 077

bin=$1
shift
directory=
for parent in "$@"; do
    directory=$(mktemp -d "$parent/poolscope-XXXXXXXX" 3<&-) && break
done
[ -n "$directory" ] || exit 1
printf 'directory %s\n' "$directory"

mkdir "$directory/run"
if "$bin/initdb" -D "$directory/data" -U postgres --auth=trust --no-sync -E UTF8 --locale=C \
    >"$directory/initdb.log" 2>&1 3<&-; then
    printf 'initdb ok\n'
else
    printf 'initdb failed\n'
fi

while read -r order <&3; do
    [ "$order" = start ] || continue
    "$bin/postgres" -D "$directory/data" >>"$directory/postgres.log" 2>&1 </dev/null 3<&- &
    server=$!
    printf 'running %s\n' "$server"
    (
        while read -r signal <&3; do
            kill -s "$signal" "$server"
        done
        # A server that someone froze hears this only once it goes on.
        kill -s QUIT "$server"
        kill -s CONT "$server"
    ) >/dev/null &
    listener=$!
    wait "$server"
    status=$?
    kill -s KILL "$listener"
    wait "$listener"
    printf 'stopped %s\n' "$status"
done

# Processes that lost a killed server end by themselves, but may still write for a moment.
rm -rf -- "$directory" || {
    sleep 1
    rm -rf -- "$directory"
}
