#!/bin/sh
# The geometry of water by density functionals; energies and coordinates without times.
n=0
while [ "$n" -lt "$1" ]; do
    n=$((n + 1))
    mkdir -p "run.$n" && cd "run.$n" || exit 1
    mpirun.openmpi --oversubscribe -n 2 nwchem ../water.nw >nwchem.out || { tail nwchem.out; exit 1; }
    cd ..
    grep -E 'Total DFT energy|^ +[0-9] (O|H) ' "run.$n/nwchem.out"
done
