#!/bin/bash
# One node: mpirun and its ranks are one process tree, saved in one image.
#SBATCH --nodes=1 --ntasks=2 --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=requeue mpirun -n 2 ./my_mpi_program
