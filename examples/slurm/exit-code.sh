#!/bin/bash
# Where slurm.conf has RequeueExit=85: the exit code is the request.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=stop ./my_script.sh
