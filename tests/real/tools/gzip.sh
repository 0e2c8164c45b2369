#!/bin/sh
# Pipelines of gzip, each with a few processes and full pipes between them.
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    seq "$n" 7 2000000 | gzip -6 | tee "part.$((n % 3)).gz" | gunzip | gzip -9 | gunzip | md5sum
done
cat part.1.gz part.2.gz | gunzip | tail -n 1
