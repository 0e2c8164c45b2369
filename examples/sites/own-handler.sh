#!/bin/bash
# A program that saves its state itself when it is warned, and the engine for what nobody warns of: the signal is passed on to the program.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=forward python3 handler.py
