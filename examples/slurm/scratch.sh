#!/bin/bash
# The image holds the scratch directory of the node's local disk, and the next node gets it back. SCRATCH: its path.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
export SCRATCH=${SCRATCH:-/tmp/$USER-scratch}
mkdir -p "$SCRATCH"
exec ckpt-launch -i 300 --resume --on USR2=requeue --save-files "$SCRATCH" ./my_scratch_script.sh
