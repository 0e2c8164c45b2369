#!/bin/sh
# A box of water.
printf '#include "oplsaa.ff/forcefield.itp"\n#include "oplsaa.ff/spce.itp"\n[ system ]\nwater\n[ molecules ]\n' >topol.top
sed "s/STEPS/$1/" water.mdp >run.mdp
gmx -quiet solvate -cs spc216 -box 3.72412 3.72412 3.72412 -o box.gro -p topol.top >prepare.log 2>&1 &&
    gmx -quiet grompp -f run.mdp -c box.gro -p topol.top -o run.tpr >>prepare.log 2>&1 || { cat prepare.log; exit 1; }
