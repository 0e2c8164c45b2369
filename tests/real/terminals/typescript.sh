#!/bin/sh
# `script` with a program that needs a terminal: what it shows is passed on and kept.
script -q -e -f -c "bash shown.sh $1" typescript
echo "ended with $?, having kept $(grep -c '30 100' typescript)"
