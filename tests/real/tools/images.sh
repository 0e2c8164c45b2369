#!/bin/sh
# Makes pictures, works on them in the threads of OpenMP, and prints a checksum of the pixels of each.
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    convert -size 500x400 -seed "$n" plasma:tomato-steelblue -blur 0x4 -swirl "$((n * 10))" "picture.$n.png" || exit 1
    convert "picture.$n.png" -resize 150% -distort SRT "$n" -median 2 -format "$n %wx%h %#\n" info: || exit 1
done
