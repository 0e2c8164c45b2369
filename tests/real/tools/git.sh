#!/bin/sh
# Packs the repository anew, twice over, with two threads.
cd repository || exit 1
git config pack.threads 2
git config gc.pruneExpire now
before=$(git rev-list --all --objects | sort | cksum)
for depth in 20 50 30; do
    git -c gc.aggressiveDepth=$depth -c gc.aggressiveWindow=250 gc --quiet --aggressive || exit 1
    git fsck --full --no-progress || exit 1
    git count-objects -v | grep -v -i size
done
[ "$(git rev-list --all --objects | sort | cksum)" = "$before" ] && echo "all objects are there: $before"
