#!/bin/bash
# With RequeueExit=85 in slurm.conf, the exit code requests the requeue.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=stop ./my_script.sh
