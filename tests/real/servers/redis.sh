#!/bin/bash
# A redis server that writes every command to its file, one client over TCP and one over a UNIX socket. Each waits for the answer.
. ./port.sh
mkdir -p data
redis-server --dir "$PWD/data" --port "$port" --bind 127.0.0.1 --unixsocket "$PWD/data/socket" --appendonly yes \
    --save '' --logfile "$PWD/data/log" --auto-aof-rewrite-min-size 100kb &
server=$!
until redis-cli -s data/socket ping >/dev/null 2>&1; do sleep 0.1; done
client() { # name, options
    name=$1
    shift
    coproc CLIENT { exec stdbuf -oL redis-cli "$@"; }
    for ((n = 1; n <= rounds; n++)); do
        echo "incr $name" >&"${CLIENT[1]}"
        read -r answer <&"${CLIENT[0]}"
        [ "$answer" = "$n" ] || { echo "$name: $n was answered with $answer"; return 1; }
        echo "rpush $name-list $n-$n-$n" >&"${CLIENT[1]}"
        read -r answer <&"${CLIENT[0]}"
        [ "$answer" = "$n" ] || { echo "$name-list: $n was answered with $answer"; return 1; }
    done
    echo "$name: $n"
}
rounds=$1
client tcp -p "$port" >tcp.out &
tcp=$!
client unix -s data/socket >unix.out &
unix=$!
wait $tcp && wait $unix || { cat tcp.out unix.out; kill $server; exit 1; }
cat tcp.out unix.out
redis-cli -p "$port" lrange tcp-list 0 -1 | cksum
redis-cli -s data/socket lrange unix-list 0 -1 | cksum
redis-cli -p "$port" shutdown
wait $server
redis-check-aof data/appendonlydir/appendonly.aof.manifest | tail -n 1
