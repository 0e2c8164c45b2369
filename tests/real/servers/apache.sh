#!/bin/bash
# Apache with threads: pages that it compresses, scripts that it runs, curl for each, some at once, and one that keeps its connection.
. ./port.sh
mkdir -p logs site
sed "s/PORT/$port/" apache.conf >apache_here.conf
seq 1 200000 >site/pages.txt
printf '#!/bin/sh\necho "Content-Type: text/html"\necho\nsleep 0.02\nexpr "$QUERY_STRING" \\* 7\n' >site/times.sh
chmod +x site/times.sh
apache2 -d "$PWD" -f apache_here.conf -DFOREGROUND &
server=$!
url=http://127.0.0.1:$port
until curl -s -o /dev/null "$url/pages.txt"; do sleep 0.1; done
want=$(cksum <site/pages.txt)
for ((n = 1; n <= $1; n++)); do
    found=$(curl -sS --compressed "$url/pages.txt" | cksum)
    [ "$found" = "$want" ] || { echo "page $n: $found instead of $want"; exit 1; }
    curl -sS "$url/times.sh?$n" >first &
    other=$!
    second=$(curl -sS "$url/times.sh?$((n + 1))" "$url/times.sh?$((n + 2))")
    wait "$other"
    echo "$n" $(<first) $second
done
kill -WINCH "$server"
wait "$server"
