#!/bin/bash
# A PostgreSQL server and pgbench with four connections.
bin=/usr/lib/postgresql/15/bin
$bin/postgres -D data -k "$PWD" -c listen_addresses= -c log_min_messages=warning &
server=$!
until $bin/pg_isready -q -h "$PWD"; do sleep 0.2; done
$bin/pgbench -h "$PWD" -n -c 4 -j 2 -t "$1" bench >bench.out || exit 1
grep 'actually processed' bench.out
# Each transaction adds the same amount to three sums, and is in the history once.
$bin/psql -h "$PWD" -At bench -c "select count(*) = $1 * 4 and coalesce(sum(delta), 0) = (select sum(abalance) from pgbench_accounts)
    and sum(delta) = (select sum(bbalance) from pgbench_branches) and sum(delta) = (select sum(tbalance) from pgbench_tellers)
    from pgbench_history"
$bin/psql -h "$PWD" -At bench -c 'create extension amcheck' -c 'select count(bt_index_check(oid, true)) > 0 from pg_class
    where relam = 403 and relname like $$pgbench%$$'
kill -INT $server
wait $server
