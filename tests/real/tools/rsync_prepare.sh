#!/bin/sh
# A tree with small and large files, links, and a directory that has most of it already.
mkdir -p from to
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    folder=from/$((n % 5))/$((n % 11))
    mkdir -p "$folder"
    seq "$n" "$((n + n * 131 % 40000))" >"$folder/$n"
    [ $((n % 7)) -ne 0 ] || ln -s "../$n" "$folder/link.$n"
done
cp -r from/1 to/ && for file in to/1/*/*; do [ -L "$file" ] || seq 5 >>"$file"; done
touch to/extra
