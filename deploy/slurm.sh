#!/usr/bin/env bash
# One recipe on several nodes under Slurm: sbatch deploy/slurm.sh photos10
# Not yet run on a Slurm cluster; the lines that read Slurm's environment are tested with one that is made up.
#
# Activate the environment that has bigkeras before sbatch. RECIPE is a name of `bigkeras list`; --run-dir after it says
# another place than runs/RECIPE.
# One task per node takes all GPUs that it sees. Tasks find each other by Slurm's own variables, on ports from 10,000 to
# 29,999 by the job's number: no TF_CONFIG is needed, and where there is one it is taken. Each listens on a free port
# besides, by which slow ones are named.
# The data must be at the same place on every node ($BIGKERAS_DATA); the run directory is written by task 0
# alone, and must lie where all nodes see it: after a requeue task 0 may be on another one. The number of all GPUs, here 16, must
# divide batch_size; a translator takes 1, 2, 4 or 8 of them: sbatch --nodes=1 deploy/slurm.sh tatoeba-en-de
#SBATCH --job-name=bigkeras
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=bigkeras-%j.log
# SIGTERM to every task a minute before the end: all save and leave, and the job goes back into the queue.
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

recipe="${1:?usage: sbatch deploy/slurm.sh RECIPE [options of bigkeras train]}"
shift

# With --kill-on-bad-exit a fallen task ends the others; every step that is started again goes on from the checkpoint.
restarts=3
for ((attempt = 0; attempt <= restarts; attempt++)); do
  began=$SECONDS
  # srun takes no cores of the job's over by itself, from Slurm 22.05 on.
  srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 --output="bigkeras-%j-%t.log" --open-mode=append \
    bigkeras train "$recipe" --strategy multiworker --run-dir "runs/$recipe" "$@"
  status=$?
  case $status in
    0) exit 0 ;;
    2) exit 2 ;; # a wrong command line is no better the next time
    # All have saved and left. Not so a task that was ended while it still waited for one that could not start.
    143) if ((SECONDS - began > 300)); then exec scontrol requeue "$SLURM_JOB_ID"; fi ;;
  esac
  echo "The step fell with status $status; $((restarts - attempt)) restarts are left." >&2
done
exit "$status"
