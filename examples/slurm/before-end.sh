#!/bin/bash
# No signal at all: the launcher asks Slurm when the job is to end. MARGIN: how long before that the last checkpoint is to be durable.
#SBATCH --requeue --open-mode=append
exec ckpt-launch -i 300 --resume --before-end "${MARGIN:-90s}=requeue" ./my_script.sh
