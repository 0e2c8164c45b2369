#!/bin/bash
# The program saves its own state when it is warned; images cover failures without a warning. The signal is forwarded to the program.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
exec ckpt-launch -i 300 --resume --on USR2=forward python3 handler.py
