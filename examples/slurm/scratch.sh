#!/bin/bash
# Scratch on the node's own disk goes into the image, and comes back on the next node. SCRATCH: where it is.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
export SCRATCH=${SCRATCH:-/tmp/$USER-scratch}
mkdir -p "$SCRATCH"
exec ckpt-launch -i 300 --resume --on USR2=requeue --save-files "$SCRATCH" ./my_scratch_script.sh
