#!/bin/sh
# One agent: `airunner scale slurm --script` submits this for each, with a name of its own.
#SBATCH --cpus-per-task=1
#SBATCH --mem=1G
#SBATCH --time=04:00:00
#SBATCH --output=airunner-agent-%j.log
#SBATCH --signal=B:TERM@120
# SIGTERM comes 120 s before the time limit, to the agent alone, since `exec` makes it the batch shell. Running jobs have
# 105 s to end; those that do not are stopped and given back with their output. To end an agent in this way yourself:
# scancel --batch --signal=TERM JOB. A plain `scancel` sends SIGTERM to its jobs too, which then fail.
umask 077
export AIRUNNER_HOME="/var/tmp/airunner-$USER" # on the node, where the next agent finds what a killed one has left
export AIRUNNER_BROKER=tcp://broker.example.org:7070
keys="$HOME/airunner-agent.keys" # made by `airunner certs export`
mkdir -p "$AIRUNNER_HOME"
flock "$AIRUNNER_HOME" airunner certs import "$keys"
exec airunner agent --queue default --disconnect-after-job --disconnect-after-idle 60 --drain-timeout 105 \
    --token-file "$HOME/airunner-agent.token"
