#!/bin/bash
# Two tasks, each a job of its own. The first that asks for the requeue would end the other, so the script asks, once both are durable.
#SBATCH --ntasks=2 --requeue --open-mode=append --signal=USR2@120
srun ckpt-launch -i 300 --resume --on USR2=stop ./my_script.sh
[ $? -ne 85 ] || scontrol requeue "$SLURM_JOB_ID"
