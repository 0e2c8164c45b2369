#!/bin/bash
# For a script that has more to do afterwards: the job is a step, and it is steps that Slurm signals without "B:".
#SBATCH --requeue --open-mode=append --signal=USR2@120
srun ckpt-launch -i 300 --resume --on USR2=requeue ./my_script.sh
code=$?
[ $code -ne 85 ] || exit 85 # It goes on later.
echo "ended with $code"
