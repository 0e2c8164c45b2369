#!/bin/sh
# A repository with one loose object for nearly everything.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main repository || exit 1
awk -v commits="$1" 'BEGIN {
    for (c = 1; c <= commits; c++) {
        text = ""
        for (i = 0; i < 400; i++) text = text (i * 7919 + int(c / 3) * (i % 50 == c % 50)) " line of text " i "\n"
        printf "commit refs/heads/main\ncommitter a <a@b> %d +0000\ndata 2\nc\n", 1700000000 + c
        printf "M 100644 inline file%d\ndata %d\n%s\n", c % 20, length(text), text
    }
}' | git -C repository -c fastimport.unpackLimit=1000000 fast-import --quiet
git -C repository for-each-ref >/dev/null
