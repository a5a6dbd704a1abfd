# Runs a private PostgreSQL server, and cleans up when its owner ends.
#
# Usage: sh -c THIS poolscope-server BIN PARENT...
#
# Standard input is a pipe from the owner. At its end, for whatever reason, the script stops the server and
# removes the directory. Each line on it is a command: `start`, or, while the server runs, the name of a
# signal to send. Each line on standard output reports a change of state.

exec 3<&0 </dev/null
# Only the pipe ends this script. PIPE is ignored too, since a report to an owner that has ended must not end it.
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

while read -r command <&3; do
    [ "$command" = start ] || continue
    "$bin/postgres" -D "$directory/data" >>"$directory/postgres.log" 2>&1 </dev/null 3<&- &
    server=$!
    printf 'running %s\n' "$server"
    (
        while read -r signal <&3; do
            kill -s "$signal" "$server"
        done
        # A stopped (SIGSTOP) server handles QUIT only after CONT.
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

# The child processes of a killed server end by themselves, but may still write for a moment.
rm -rf -- "$directory" || {
    sleep 1
    rm -rf -- "$directory"
}
