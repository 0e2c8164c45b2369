#!/bin/bash
# What sites teach for HTCondor: the program, which saves its state itself, is ended by the clock, and exit code 85 has it started again.
# STOP_AFTER: the time between two checkpoints.
timeout "${STOP_AFTER:-4h}" ./own-trap.sh
code=$?
[ $code -eq 124 ] && exit 85
exit $code
