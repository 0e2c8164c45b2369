#!/bin/bash
# Without any signal: the launcher asks Slurm when the job ends. MARGIN: how long before the end the last checkpoint begins.
#SBATCH --requeue --open-mode=append
exec ckpt-launch -i 300 --resume --before-end "${MARGIN:-90s}=requeue" ./my_script.sh
