#!/bin/sh
# A database of nucleotides and one of proteins, searched in two threads.
makeblastdb -in genes.fa -dbtype nucl -out genes >/dev/null && makeblastdb -in proteins.fa -dbtype prot -out proteins >/dev/null || exit 1
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    awk -v name=">s$((4 * n + 1))" '$0 == name { print; getline; print }' genes.fa >"query.$n.fa"
    blastn -task blastn -num_threads 2 -db genes -query "query.$n.fa" -outfmt 6 -evalue 10 || exit 1
    blastx -num_threads 2 -db proteins -query "query.$n.fa" -outfmt 6 -evalue 100 || exit 1
done
