#!/bin/sh
# Molecular dynamics of water by the command given, and what the trajectory holds.
"$@" -pin off -reprod -s run.tpr -deffnm run -cpt 0.1 2>mdrun.log || { cat mdrun.log; exit 1; }
cat run.gro
gmx -quiet dump -f run.xtc 2>/dev/null | cksum
