
# --- what follows is the same for every run: launch/templates/slurm.sh

set -uo pipefail
excluded=$logs/excluded_nodes # nodes that failed, one per line; delete a line when its node is repaired
mkdir -p "$logs" || exit 2
(umask 077 && touch "$excluded") || exit 2
# One task of an array has the array's own number in SLURM_JOB_ID, by which squeue and scontrol mean all of its tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
complaints=$logs/job_${SLURM_JOB_ID}_srun.txt # srun's own messages: how each rank ended, which node failed
attempt=${SLURM_RESTART_COUNT:-0}
newest_attempt=$logs/job_${SLURM_JOB_ID}_life
echo "$attempt" > "$newest_attempt" || exit 2
asked_to_stop=
ending=
signals=0

say() { printf '%s job %s attempt %s: %s\n' "$(date '+%F %T')" "$job" "$attempt" "$*"; }

# True if this is still the job's latest attempt. A script whose node SLURM has given up keeps running and sees the job
# as running, but must neither stop nor requeue the attempt that has replaced it.
is_newest_attempt() {
  local newest
  newest=$(cat "$newest_attempt" 2> /dev/null)
  [ "${newest:-$attempt}" = "$attempt" ] # an unreadable file does not mean that there is a later attempt
}
end_if_outlived() {
  if ! is_newest_attempt; then
    say "SLURM has started this job again: this script ends"
    exit 75
  fi
}

# Ask SLURM until it answers, for ten minutes: its controller may be away for a moment.
ask_slurm() {
  local tries
  for tries in {1..120}; do
    if [ "$tries" -gt 1 ]; then
      sleep 5
      is_newest_attempt || return 1 # the request was meant for this attempt, but would now reach the next one
    fi
    "$@" && return
  done
  say "SLURM does not answer: $*" >&2
  return 1
}

# One field of the run's status. Empty, with a non-zero code, while there is no status or if it cannot be read. The
# program may be installed only in the container of the ranks: `ask_run` starts it there.
status() {
  local value
  value=$(timeout 120 "${ask_run[@]}" python -m launch status "$run" --field "$1") && echo "$value"
}

by_script="asked by the job script"
ask_to_stop() { ! is_newest_attempt || echo "$by_script" > "$stop_file"; }

# A stop request that this script made for a previous attempt no longer counts; a person's request does.
forget_own_request() {
  if grep -qsxF "$by_script" "$stop_file"; then rm -f "$stop_file"; fi
}

# SLURM sends its warning to this script, not to the ranks. The run then saves after the step and stops.
on_warning() {
  signals=$((signals + 1))
  [ -z "$asked_to_stop" ] || return
  asked_to_stop=yes
  say "asked to stop; the run saves after this step"
  ask_to_stop
  # A run that is still starting removes the file as a leftover: write it again and again.
  while sleep 5; do ask_to_stop; done > /dev/null 2>&1 & # does not keep the script's output open
  trap "kill $!" EXIT
}

# SLURM is ending the job. If it requeues the job, the next attempt must not get a node that failed.
on_ending() {
  signals=$((signals + 1))
  ending=yes
  ask_to_stop
  tell_slurm_of_excluded_nodes
}

trap on_warning USR1
trap on_ending TERM

# The healthy nodes, one per line. SLURM is asked for the allocation, since it may have lost nodes.
healthy_nodes() {
  local names
  names=$(ask_slurm squeue -h -j "$job" -o %N) || return
  scontrol show hostnames "$names" | grep -vxF -f "$excluded"
}

# Nodes to start on: all, or the largest number at which every batch still to come divides among the replicas.
# `layouts` has a line for each stretch of the run: its first sample, then the numbers of nodes that work, largest first.
usable() {
  local available=$1 first counts count best=0
  [ "$available" -ge "$min_nodes" ] || available=0
  while read -r first counts; do
    [ "$first" -le "${seen:-0}" ] || break
    best=0
    for count in $counts; do
      if [ "$count" -le "$available" ]; then
        best=$count
        break
      fi
    done
  done <<< "$layouts"
  echo "$best"
}

# Exclude the nodes on standard input, one per line, as far as enough others are there; the argument says why.
exclude_nodes() {
  local node others
  is_newest_attempt || return
  while read -r node; do
    grep -qxF "$node" "$excluded" && continue
    others=$(sinfo -h -N -p "$SLURM_JOB_PARTITION" -o '%N %t' |
      awk -v left_out="$node" '$1 != left_out && $2 ~ /^(idle|mix|alloc|comp|resv|plnd)$/ { print $1 }' |
      sort -u | grep -cvxF -f "$excluded")
    if [ "$others" -ge "$min_nodes" ]; then
      say "$node $1: excluded from now on ($excluded)"
      echo "$node" >> "$excluded"
    else
      say "$node $1, but only $others others are there: SLURM may give it again"
    fi
  done
}

exclude_failed_nodes() {
  exclude_nodes "failed" < <(sed -n 's/.*Node failure on \([^ ,]*\).*/\1/p' "$complaints" 2> /dev/null | sort -u)
}

# Those of ranks that the attempt which has just ended has named as slow.
exclude_slow_nodes() {
  [ "$exclude_slow" = yes ] || return 0
  exclude_nodes "was slow" < <(status slow_hosts | tr -s ' ' '\n' | sed '/^$/d')
}

unwanted_nodes() { printf '%s%s' "$(paste -sd, "$excluded")" "${exclude:+,$exclude}"; }

# Set the excluded nodes of the given jobs, or of this one. SLURM accepts this only for a job that waits in the queue.
tell_slurm_of_excluded_nodes() {
  local waiting
  exclude_failed_nodes
  [ -s "$excluded" ] || return 0
  for waiting in "${@:-$job}"; do
    scontrol update JobId="$waiting" ExcNodeList="$(unwanted_nodes)" 2> /dev/null
  done
}

end_without_requeue() {
  local links again=(sbatch)
  mapfile -t links < <(later_links)
  if [ ${#links[@]} -gt 0 ]; then
    say "$*: the next job of the chain continues (${links[0]})"
    tell_slurm_of_excluded_nodes "${links[@]}"
    exit 75
  fi
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || again+=("--array=$SLURM_ARRAY_TASK_ID")
  [ ! -s "$excluded" ] || again+=("--exclude=$(unwanted_nodes)")
  say "$*, and cluster.requeue=false: send it again with: ${again[*]} $(printf %q "$script")"
  exit 75
}

start_again() {
  end_if_outlived
  [ "$requeue" = yes ] || end_without_requeue "$@"
  say "$*: back to the queue"
  # A job that SLURM or its owner is ending must not come back.
  [ "$(ask_slurm squeue -h -j "$job" -o %T)" = RUNNING ] || exit 75
  end_if_outlived
  ask_slurm scontrol requeue "$job" # SLURM now ends this script, perhaps before the next line: on_ending repeats that
  tell_slurm_of_excluded_nodes
  exit 75
}

# The rest of a chain: pending jobs that depend on this one, directly or not. In arrays only the same task counts.
later_links() {
  squeue -h -r -u "$(id -u)" -t PENDING -o '%i %E' | sort -n |
    awk -v first="${job%_*}" -v task="${SLURM_ARRAY_TASK_ID:-}" '
      BEGIN { chain[first] }
      {
        split($1, id, "_")
        split($2, after, /[^0-9]+/) # such as afterany:77(unfulfilled), in arrays afterany:77_*(unfulfilled)
        is_link = 0
        for (i in after) if (after[i] in chain) is_link = 1
        if (!is_link) next
        chain[id[1]]
        if (id[2] == task) print $1
      }'
}

give_up() {
  local code=$1 links
  shift
  end_if_outlived
  say "$*"
  mapfile -t links < <(later_links)
  [ ${#links[@]} -eq 0 ] || scancel "${links[@]}"
  exit "$code"
}

# Count the attempts of this job since the last checkpoint, this one included. The count is kept in a file, since SLURM
# may end this script at any moment.
count_attempts() {
  local of attempts last_seen
  seen=$(status samples_seen 2> /dev/null) # empty before the first checkpoint
  read -r of attempts last_seen 2> /dev/null < "$logs/lives" || of=
  [ "${of:-}" = "$SLURM_JOB_ID" ] && [ "${last_seen:-0}" = "${seen:-0}" ] && [[ $attempts =~ ^[0-9]{1,9}$ ]] || attempts=0
  attempts=$((attempts + 1))
  echo "$SLURM_JOB_ID $attempts ${seen:-0}" > "$logs/lives"
  if [ "$attempts" -gt "$((max_restarts + 1))" ]; then
    give_up 3 "$max_restarts restarts in a row brought no new checkpoint: see $logs and $run_log"
  fi
}

choose_nodes() {
  mapfile -t nodes < <(healthy_nodes)
  count=$(usable ${#nodes[@]})
  [ "$count" -gt 0 ] || start_again "${#nodes[@]} healthy nodes are too few"
}

# Wait for the end of a step: `code` is then srun's, and `complaints` are shown.
await() {
  local handled
  while :; do
    handled=$signals
    wait "$1"
    code=$?
    [ "$handled" -ne "$signals" ] || break # otherwise a trap ended the wait, not the step
  done
  cat "$complaints"
}

# Each rank measures its node. Nodes that fail are added to the excluded ones, and the remaining nodes are checked again.
# Only rank 0 knows the verdict, so it must not be killed when another rank dies early. It waits two minutes for a rank
# that does not report; --wait ends the ranks that still hang after the verdict.
check_nodes() {
  local known
  while [ "$preflight" = yes ] && [ -z "$asked_to_stop$ending" ]; do
    known=$(wc -l < "$excluded")
    : > "$complaints"
    export MASTER_ADDR=${nodes[0]} MASTER_PORT=$((10000 + (SLURM_JOB_ID * 16 + known + 8) % 20000))
    srun --overlap --nodes="$count" --nodelist="$(IFS=, && echo "${nodes[*]:0:count}")" --ntasks=$((count * ranks_per_node)) \
      --ntasks-per-node="$ranks_per_node" --export=ALL --kill-on-bad-exit=0 --wait=300 "${srun_options[@]}" \
      "${container[@]}" python -m launch preflight "${command[@]:3}" --exclude-file "$excluded" 2>> "$complaints" &
    await $!
    [ -z "$ending" ] || exit 75
    [ -z "$asked_to_stop" ] || start_again "asked to stop while the nodes were checked"
    [ "$code" -ne 0 ] || return 0
    exclude_failed_nodes
    if [ "$(wc -l < "$excluded")" -eq "$known" ]; then
      [ "$code" -ne 2 ] || give_up 2 "the input is wrong: the message of the node check stands above; correct it, and send the job again"
      start_again "the node check ended with $code and names no node that could be left out"
    fi
    choose_nodes
  done
}

# Start the ranks on the given nodes, and wait for their end: `code` is then srun's.
train() {
  local ranks=$(($# * ranks_per_node))
  export MASTER_ADDR=$1
  # Below Linux's ephemeral ports; another one for each attempt.
  export MASTER_PORT=$((10000 + (SLURM_JOB_ID * 16 + attempt + attempts_here) % 20000))
  : > "$complaints"
  # SLURM may count a step that lost a node as running for ever: with --overlap the next step does not wait for its cores.
  # When the others have ended, rank 0 still shows what was learnt: --wait leaves it time.
  srun --overlap --nodes=$# --nodelist="$(IFS=, && echo "$*")" --ntasks=$ranks --ntasks-per-node="$ranks_per_node" \
    --export=ALL --kill-on-bad-exit=1 --wait=600 --open-mode=append --output="$logs/job_${SLURM_JOB_ID}_%N.txt" \
    "${srun_options[@]}" "${container[@]}" "${command[@]}" 2>> "$complaints" &
  await $!
}

# After a failure: wait until all nodes answer, or SLURM has removed those that do not from the job.
wait_for_nodes() {
  local tries=0 nodes
  mapfile -t nodes < <(healthy_nodes)
  until timeout 60 srun --overlap --nodes=${#nodes[@]} --nodelist="$(IFS=, && echo "${nodes[*]}")" --ntasks-per-node=1 \
    --ntasks=${#nodes[@]} true 2> /dev/null; do
    tries=$((tries + 1))
    [ -z "$ending" ] || exit 3
    [ $tries -lt 40 ] || start_again "not all of ${nodes[*]} answer"
    sleep 15
    mapfile -t nodes < <(healthy_nodes)
  done
}

attempts_here=0
while :; do
  end_if_outlived
  count_attempts
  choose_nodes
  check_nodes
  say "$count of ${#nodes[@]} healthy nodes: ${nodes[*]:0:count}"
  before=$(status time 2> /dev/null)
  forget_own_request
  train "${nodes[@]:0:count}"
  attempts_here=$((attempts_here + 1))
  state=$(status state) # empty: the ranks failed before they wrote a status
  [ "$(status time 2> /dev/null)" != "$before" ] || state= # a previous attempt wrote it
  say "ended with $code, status ${state:-not written}"
  [ -z "$state" ] || exclude_slow_nodes
  case $state in
    "done") exit 0 ;;
    stopped)
      case $(status stop_reason) in
        run.stop_after_samples) give_up 75 "stopped by run.stop_after_samples" ;;
        # If neither a warning nor the end of the job made this script write the file, a person did. The job then ends.
        "the file "*) [ -n "$asked_to_stop$ending" ] || give_up 75 "stopped by its owner" ;;
      esac
      if [ -n "$ending" ] || [ "$when_stopped" = end ]; then exit 75; fi
      start_again "stopped for the scheduler"
      ;;
  esac
  [ "$code" -ne 0 ] || exit 0 # the run was already finished
  [ -z "$ending" ] || exit "$code"
  if grep -q 'Node failure on' "$complaints"; then
    exclude_failed_nodes
    [ "$keeps_nodes" = yes ] || start_again "a node failed"
  elif grep -q 'xited with exit code 2$' "$complaints"; then
    give_up 2 "the input is wrong: read $logs/job_${SLURM_JOB_ID}_${nodes[0]}.txt, correct it, and send the job again"
  elif grep -q 'xited with exit code 1$' "$complaints"; then
    give_up 1 "a rank stopped with a bug: its message is in $logs"
  elif [ -n "$asked_to_stop" ]; then
    start_again "ended before it could save"
  fi
  wait_for_nodes
  say "starting again on the nodes that are left"
done
