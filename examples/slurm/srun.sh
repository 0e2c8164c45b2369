#!/bin/bash
# For a script with more to do afterwards: the job is a step. Without "B:" Slurm signals the steps.
#SBATCH --requeue --open-mode=append --signal=USR2@120
srun ckpt-launch -i 300 --resume --on USR2=requeue ./my_script.sh
code=$?
[ $code -ne 85 ] || exit 85 # The job continues later.
echo "ended with $code"
