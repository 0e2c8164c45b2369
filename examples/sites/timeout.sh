#!/bin/bash
# A site's recipe for HTCondor: the program saves its own state, timeout ends it, and exit code 85 makes HTCondor start it again.
# STOP_AFTER: time between two checkpoints.
timeout "${STOP_AFTER:-4h}" ./own-trap.sh
code=$?
[ $code -eq 124 ] && exit 85
exit $code
