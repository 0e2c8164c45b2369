#!/bin/bash
# nginx with two workers: pages that it compresses, a proxy to itself, curl for each, and one curl that keeps its connection.
. ./port.sh
mkdir -p logs temporary
sed "s/PORT/$port/" nginx.conf >site.conf
seq 1 200000 >pages.txt
nginx -p "$PWD" -e logs/error.log -c site.conf &
server=$!
until curl -s -o /dev/null "http://127.0.0.1:$port/pages.txt"; do sleep 0.1; done
want=$(cksum <pages.txt)
for ((n = 1; n <= $1; n++)); do
    case $((n % 3)) in
    0) found=$(curl -sS "http://127.0.0.1:$port/pages.txt" | cksum) ;;
    1) found=$(curl -sS --compressed --limit-rate 8M "http://127.0.0.1:$port/pages.txt" | cksum) ;;
    2) found=$(curl -sS "http://127.0.0.1:$port/through/pages.txt" "http://127.0.0.1:$port/pages.txt" | head -c "$(wc -c <pages.txt)" | cksum) ;;
    esac
    [ "$found" = "$want" ] || { echo "page $n: $found instead of $want"; exit 1; }
    echo "$n"
done
kill -QUIT $server
wait $server
