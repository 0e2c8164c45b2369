#!/bin/sh
# A mesh, cut in two, the flow on it by two processes, and both halves put together; residuals without times, and the fields.
step() { "$@" >log 2>&1 || { tail log; exit 1; }; }
step blockMesh
step decomposePar
step mpirun.openmpi --oversubscribe -n 2 icoFoam -parallel
grep -E '^(Time =|Courant|smoothSolver|DICPCG|time step)' log
step reconstructPar -latestTime
cat [1-9]*/U [1-9]*/p 0.*/U 0.*/p 2>/dev/null | cksum
