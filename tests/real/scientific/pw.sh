#!/bin/sh
# The self-consistent field of silicon, and what it finds, without times.
sed "s/MESH/$1/g" silicon.in >run.in
mpirun.openmpi --oversubscribe -n 2 pw.x -in run.in >pw.out || { tail pw.out; exit 1; }
grep -E 'total energy|estimated scf|k\(|bands \(ev\)|highest|convergence has been|JOB DONE' pw.out
