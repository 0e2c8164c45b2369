#!/bin/bash
# Two tasks, two jobs. A requeue by the first task would end the other, so the script requeues when both images are durable.
#SBATCH --ntasks=2 --requeue --open-mode=append --signal=USR2@120
srun ckpt-launch -i 300 --resume --on USR2=stop ./my_script.sh
[ $? -ne 85 ] || scontrol requeue "$SLURM_JOB_ID"
