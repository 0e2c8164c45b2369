#!/bin/bash
# A memcached server with two threads, and two clients that wait for each answer.
. ./port.sh
memcached -l 127.0.0.1 -p "$port" -t 2 -u "$(id -un 2>/dev/null || echo nobody)" &
server=$!
until exec 3<>"/dev/tcp/127.0.0.1/$port"; do sleep 0.1; done 2>/dev/null
ask() { # command, its data: the answer's first line without its carriage return
    printf '%s\r\n' "$@" >&3
    read -r -u 3 answer
    answer=${answer%$'\r'}
}
client() {
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    ask "set $1 0 0 1" 0
    ask "set $1-text 0 0 1" .
    for ((n = 1; n <= rounds; n++)); do
        ask "incr $1 1"
        [ "$answer" = "$n" ] || { echo "$1: $n was answered with $answer"; return 1; }
        ask "append $1-text 0 0 6" "$(printf '%6d' "$n")"
        [ "$answer" = STORED ] || { echo "$1-text: $n was answered with $answer"; return 1; }
    done
    ask "get $1-text"
    read -r -u 3 text
    echo "$1: $n, $(printf '%s' "$text" | cksum)"
}
rounds=$1
client first >first.out &
first=$!
client second >second.out &
second=$!
wait $first && wait $second
code=$?
cat first.out second.out
kill $server
wait $server
exit $code
