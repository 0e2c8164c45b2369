#!/bin/sh
# Molecular dynamics of water in two threads, and what the trajectory holds.
gmx -quiet mdrun -ntmpi 1 -ntomp 2 -pin off -reprod -s run.tpr -deffnm run -cpt 0.1 2>mdrun.log || { cat mdrun.log; exit 1; }
cat run.gro
gmx -quiet dump -f run.xtc 2>/dev/null | cksum
