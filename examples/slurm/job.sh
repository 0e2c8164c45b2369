#!/bin/bash
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=requeue ./my_script.sh
