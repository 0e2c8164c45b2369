#!/bin/sh
# Profiles, searches and alignments, without the lines that tell dates and times.
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    awk -v name=">s$((4 * n + 1))" '$0 == name { print; getline; print }' proteins.fa >"query.$n.fa"
    jackhmmer --cpu 2 -N 3 --tblout "found.$n" --noali -o log -A "aligned.$n" "query.$n.fa" proteins.fa || exit 1
    grep -v '^#' "found.$n"
    hmmbuild --cpu 1 -o log "profile.$n.hmm" "aligned.$n" || { cat log; exit 1; }
    hmmsearch --cpu 2 --domtblout "domains.$n" -o log "profile.$n.hmm" proteins.fa || exit 1
    grep -v '^#' "domains.$n"
done
