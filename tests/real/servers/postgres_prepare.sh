#!/bin/bash
bin=/usr/lib/postgresql/15/bin
# initdb asks for its user's name, who has none in the tests.
echo "bench:x:$(id -u):$(id -g)::$PWD:/bin/sh" >passwd
echo "bench:x:$(id -g):" >group
LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=passwd NSS_WRAPPER_GROUP=group \
    $bin/initdb -U bench -D data -A trust --no-sync >/dev/null || exit 1
$bin/pg_ctl -D data -s -w -l prepare.log -o "-k '$PWD' -c listen_addresses= -F" start || exit 1
$bin/createdb -h "$PWD" bench && $bin/pgbench -h "$PWD" -q -i -s 1 bench 2>/dev/null
$bin/pg_ctl -D data -s -w -m fast stop
