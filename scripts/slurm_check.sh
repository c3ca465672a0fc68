#!/usr/bin/env bash
# A Slurm of one node on this machine (Debian, as root), and a sweep of two jobs through it.
#   scripts/slurm_check.sh            keeps nothing but the installed packages
# Proves that hydra/launcher=submitit_slurm works with run.py: both jobs run under slurmd and are done.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[[ $(id -u) == 0 ]] || { echo "needs root: it writes slurm.conf and starts slurmctld" >&2; exit 2; }
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
fi
work=$(mktemp -d)
pids=()
stop() {
    local code=$?
    (( code == 0 )) || tail -n 20 "$work"/*.log >&2 || true
    # A step outlives its daemons: let the jobs end first.
    for _ in $(seq 20); do [[ -z $(squeue --noheader 2>/dev/null) ]] && break; sleep 1; done
    [[ -z $(squeue --noheader 2>/dev/null) ]] || { scancel --user=root --full; sleep 3; }
    (( ${#pids[@]} )) && kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
    exit "$code"
}
trap stop EXIT
trap 'exit 143' TERM INT

host=$(hostname -s)
mkdir -p "$work/state" "$work/spool" /run/munge
cat > "$work/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
AccountingStorageType=accounting_storage/none
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=check Nodes=$host Default=YES State=UP
CONF
# slurmd opens a cgroup plugin even where nothing uses it; the one that fits the mount.
[[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] && cgroup=v2 || cgroup=v1
printf 'CgroupPlugin=cgroup/%s\nCgroupAutomount=no\nIgnoreSystemd=yes\n' "$cgroup" > "$work/cgroup.conf"
export SLURM_CONF=$work/slurm.conf

[[ -s /etc/munge/munge.key ]] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; chmod 400 /etc/munge/munge.key; }
chown munge: /run/munge /etc/munge/munge.key
if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
    runuser -u munge -- munged --foreground >"$work/munged.log" 2>&1 & pids+=($!)
    sleep 1
fi
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.out.log" 2>&1 & pids+=($!)
slurmd -D -f "$SLURM_CONF" >"$work/slurmd.out.log" 2>&1 & pids+=($!)
idle() { sinfo --noheader --states=idle 2>/dev/null | grep -q check; }
for _ in $(seq 30); do idle && break; sleep 1; done
idle || { echo "the node did not come up:" >&2; sinfo >&2; exit 1; }

"$python" - "$work" <<'PY'
import json, sys
from pathlib import Path
sys.path.insert(0, ".")
from tests.tiny_models import save_tiny
work = Path(sys.argv[1])
save_tiny("llama", work / "tiny", initializer_range=0.3)
rows = [{"context": "The sky is blue. " * 9, "question": f"Number {n}?", "outputs": [str(n)]} for n in range(4)]
(work / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
PY
# A node of one or two cores runs the jobs one after the other; they share no process either way.
"$python" run.py -m hydra/launcher=submitit_slurm hydra.launcher.partition=check hydra.launcher.timeout_min=5 \
    hydra.launcher.cpus_per_task=1 hydra.launcher.mem_gb=null method=full,streaming_llm model=hf \
    model.path="$work/tiny" model.dtype=float32 task=json_file task.path="$work/data.jsonl" samples=4 \
    generation.max_new_tokens=6 measure=quality recorder=local results="$work/results" | tee "$work/sweep.txt"
grep -q "2 of 2 jobs done" "$work/sweep.txt"
find "$work/results" -name summary.json | wc -l | grep -qx 2
ls "$work"/results/.hydra/.submitit/*/*_submitted.pkl >/dev/null
echo "submitit_slurm: two jobs ran under $(sinfo --version)"
