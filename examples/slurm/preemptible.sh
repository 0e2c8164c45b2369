#!/bin/bash
# Slurm requeues preempted jobs. SIGTERM, the only warning, triggers a last checkpoint.
#SBATCH --requeue --open-mode=append
exec ckpt-launch -i auto --resume python3 train.py
