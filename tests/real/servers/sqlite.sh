#!/bin/bash
# Inserts rows one by one and prints the number of each only when the database has acknowledged it. One sqlite3 inserts for all the time,
# through a pipe; others come and go.
mkdir -p data
sqlite3 data/work.db 'create table rows(n integer primary key, value text); create index by_value on rows(value)'
coproc DB { exec stdbuf -oL sqlite3 -batch data/work.db; }
echo '.timeout 20000' >&"${DB[1]}"
for ((n = 1; n <= $1; n++)); do
    row="insert into rows values($n, hex(randomblob(30))); select max(n) from rows;"
    if ((n % 10)); then
        echo "$row" >&"${DB[1]}"
        read -r acknowledged <&"${DB[0]}"
    else
        acknowledged=$(sqlite3 -cmd '.timeout 20000' data/work.db "$row")
    fi
    [ "$acknowledged" = "$n" ] || { echo "row $n was answered with $acknowledged"; exit 1; }
    echo "$n"
done
to=${DB[1]} inserter=$DB_PID
exec {to}>&-
wait "$inserter"
