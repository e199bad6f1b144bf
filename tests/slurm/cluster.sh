#!/usr/bin/env bash
# A Slurm for the tests:   tests/slurm/cluster.sh install | start | stop | restart-controller
#
# All its files lie under $IMPRINT_SLURM (default /tmp/imprint-slurm) and its ports are its own. While it is up, links in
# /etc/slurm lead to its configuration (the executor takes SLURM_CONF out of its jobs' environment); a machine that has a
# Slurm of its own is refused. Needs root and Debian's packages (`install` gets them).
# Real: scheduling, requests, states, accounting, limits. Stand-ins: two nodes on this machine, each with a slurmd of its
# own, 8 CPUs whatever the machine has, and 2 GPUs that are clones of /dev/null, which Slurm hands out
# (CUDA_VISIBLE_DEVICES) and on which nothing can run. The partition `main`, the default, has the first node alone, and
# `pair` has both.
set -euo pipefail

base=${IMPRINT_SLURM:-/tmp/imprint-slurm}
node=$(hostname -s)
nodes=("$node" "$node-second")
export SLURM_CONF=$base/slurm.conf

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

until_true() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "cluster.sh: gave up on: $*" >&2; tail -n 20 "$base"/log/*.log >&2; return 1; }
    sleep 0.2
  done
}

end() { # PIDFILE: by process id only
  running "$1" || return 0
  kill "$(cat "$1")"
  for _ in $(seq 100); do running "$1" || return 0; sleep 0.1; done
  kill -9 "$(cat "$1")" || true
}

install_packages() {
  local missing=()
  for program in slurmctld slurmd slurmdbd munged mariadbd; do command -v $program >/dev/null || missing+=("$program"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "cluster.sh: ${missing[*]} not found; only root on a Debian can install them, so the Slurm tests will be skipped"
    return 0
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends munge slurm-wlm slurm-client slurm-wlm-basic-plugins slurmdbd \
    slurm-wlm-mysql-plugin mariadb-server >/dev/null
}

configure() {
  if [ -e /etc/slurm/slurm.conf ] && [ ! -L /etc/slurm/slurm.conf ]; then
    echo "cluster.sh: /etc/slurm/slurm.conf is there: this machine has a Slurm of its own, which the tests leave alone" >&2
    exit 1
  fi
  mkdir -p /etc/slurm
  ln -sfn "$base/slurm.conf" "$base/gres.conf" "$base/cgroup.conf" /etc/slurm/
  local memory=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024 * 9 / 10))
  mkdir -p "$base"/{dev,log,state,spool}
  getent hosts "$node" >/dev/null || echo "127.0.0.1 $node" >>/etc/hosts
  [ -s "$base/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$base/munge.key")
  for number in 0 1; do [ -c "$base/dev/gpu$number" ] || mknod "$base/dev/gpu$number" c 1 3; done
  local every; every=$(IFS=,; echo "${nodes[*]}")
  echo "NodeName=$every Name=gpu Type=standin File=$base/dev/gpu[0-1]" >"$base/gres.conf"
  echo "CgroupAutomount=no" >"$base/cgroup.conf"
  cat >"$base/slurm.conf" <<CONF
ClusterName=imprint
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$base/munge.socket
CredType=cred/munge
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
SlurmctldPidFile=$base/slurmctld.pid
SlurmdPidFile=$base/slurmd-%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=26819
AccountingStoragePass=$base/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
MinJobAge=300
KillWait=3
SlurmdParameters=config_overrides
DefMemPerCPU=500
NodeName=DEFAULT CPUs=8 RealMemory=$memory Gres=gpu:standin:2 State=UNKNOWN
NodeName=${nodes[0]} NodeAddr=127.0.0.1 Port=26818
NodeName=${nodes[1]} NodeAddr=127.0.0.1 Port=26828
PartitionName=DEFAULT MaxTime=INFINITE State=UP
PartitionName=main Nodes=$node Default=YES
PartitionName=pair Nodes=$every
CONF
  (umask 077; cat >"$base/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$base/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=26819
SlurmUser=root
PidFile=$base/slurmdbd.pid
LogFile=$base/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  )
}

start() {
  install_packages
  configure
  running "$base/munged.pid" || munged --force --key-file="$base/munge.key" --socket="$base/munge.socket" \
    --pid-file="$base/munged.pid" --log-file="$base/log/munged.log" --seed-file="$base/munge.seed"
  # slurmdbd looks for the database at MariaDB's usual socket, unless this variable of its client names another.
  export MYSQL_UNIX_PORT=$base/db.socket
  if ! running "$base/db.pid"; then
    [ -d "$base/db/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$base/db" >"$base/log/db.log" 2>&1
    setsid mariadbd --no-defaults --user=root --datadir="$base/db" --skip-networking --socket="$base/db.socket" \
      --pid-file="$base/db.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 </dev/null >>"$base/log/db.log" 2>&1 &
    until_true 60 mariadb-admin --no-defaults --socket="$base/db.socket" ping
    mariadb --no-defaults --socket="$base/db.socket" -e "create database if not exists slurm_acct_db"
  fi
  running "$base/slurmdbd.pid" || slurmdbd
  until_true 60 sacctmgr -n -i show cluster
  [ -n "$(sacctmgr -n show cluster imprint)" ] || sacctmgr -i add cluster imprint >/dev/null
  if [ -z "$(sacctmgr -n show account tests)" ]; then
    sacctmgr -i add account tests Description=tests Organization=tests >/dev/null
    sacctmgr -i add user root Account=tests DefaultAccount=tests >/dev/null || true
  fi
  running "$base/slurmctld.pid" || slurmctld -f "$SLURM_CONF"
  for name in "${nodes[@]}"; do running "$base/slurmd-$name.pid" || slurmd -f "$SLURM_CONF" -N "$name"; done
  until_true 60 scontrol ping
  for name in "${nodes[@]}"; do
    scontrol update nodename="$name" state=resume 2>/dev/null || true
    until_true 60 bash -c "sinfo -h -n '$name' -o %t | grep -qE '^(idle|mix|alloc)$'"
  done
  sinfo -p pair -N -o "%N %t %c CPUs %m MB %G"
}

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop)
    for name in "${nodes[@]/#/slurmd-}" slurmctld slurmdbd db munged; do end "$base/$name.pid"; done
    rm -f /etc/slurm/{slurm,gres,cgroup}.conf
    ;;
  restart-controller) end "$base/slurmctld.pid"; sleep "${2:-5}"; slurmctld -f "$SLURM_CONF"; until_true 60 scontrol ping ;;
  *) echo "usage: $0 install | start | stop | restart-controller [SECONDS]" >&2; exit 2 ;;
esac
