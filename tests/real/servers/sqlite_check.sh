#!/bin/sh
# Every row that was acknowledged is there, once, and no other.
[ "$(sqlite3 data/work.db 'pragma integrity_check')" = ok ] || exit 1
sqlite3 data/work.db 'select n from rows order by n' | cmp - out
seq "$1" | cmp - out
