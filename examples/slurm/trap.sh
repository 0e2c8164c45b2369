#!/bin/bash
# For a script with more to do afterwards, without srun. The batch shell gets the signal. bash handles it only while it waits for a
# background job.
#SBATCH --requeue --open-mode=append --signal=B:USR2@120
ckpt-launch -i 300 --resume --on USR2=requeue ./my_script.sh & job=$!
trap 'kill -USR2 $job' USR2
trap 'kill -TERM $job' TERM
while kill -0 $job 2>/dev/null; do wait $job; done
wait $job; code=$?
[ $code -ne 85 ] || exit 85 # The job continues later.
echo "ended with $code"
