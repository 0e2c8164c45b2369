#!/bin/bash
# Slurm requeues what it preempts; SIGTERM, its only warning, is a reason for a last checkpoint.
#SBATCH --requeue --open-mode=append
exec ckpt-launch -i auto --resume python3 train.py
