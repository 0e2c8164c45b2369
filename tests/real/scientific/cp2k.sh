#!/bin/sh
# Born-Oppenheimer dynamics of a molecule of water. Energies without the time that each step took, and the trajectory.
sed "s/STEPS_OF_THE_RUN/$1/" cp2k.inp >run.inp
mpirun.openmpi --oversubscribe -n 2 cp2k.psmp -i run.inp -o run.out || { tail run.out; exit 1; }
awk '!/^#/ { print $1, $3, $4, $5, $6 }' water-1.ener
cat water-pos-1.xyz
