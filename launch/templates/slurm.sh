
# --- what follows is the same for every run: launch/templates/slurm.sh

set -uo pipefail
excluded=$logs/excluded_nodes # one a line: nodes that failed; delete a line when its node is repaired
mkdir -p "$logs" || exit 2
(umask 077 && touch "$excluded") || exit 2
# One task of an array has the array's own number in SLURM_JOB_ID, by which squeue and scontrol mean all of its tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
complaints=$logs/job_${SLURM_JOB_ID}_srun.txt # what srun itself says: which rank ended how, which node failed
attempt=${SLURM_RESTART_COUNT:-0}
newest_attempt=$logs/job_${SLURM_JOB_ID}_life
echo "$attempt" > "$newest_attempt" || exit 2
asked_to_stop=
ending=
signals=0

say() { printf '%s job %s attempt %s: %s\n' "$(date '+%F %T')" "$job" "$attempt" "$*"; }

# Whether the job has not begun its next attempt. A script whose node SLURM has given up runs on and sees the job run,
# but must neither stop nor requeue what the next script is doing.
is_newest_attempt() {
  local newest
  newest=$(cat "$newest_attempt" 2> /dev/null)
  [ "${newest:-$attempt}" = "$attempt" ] # a file system that does not answer says nothing of another attempt
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
      is_newest_attempt || return 1 # what was asked for this attempt would now meet the next one
    fi
    "$@" && return
  done
  say "SLURM does not answer: $*" >&2
  return 1
}

# One value of the run's status; none, and a code that is not 0, before it has any or if it cannot be read. `ask_run`
# starts the program where the ranks have it, which may be in a container alone.
status() {
  local value
  value=$(timeout 120 "${ask_run[@]}" python -m launch status "$run" --field "$1") && echo "$value"
}

by_script="asked by the job script"
ask_to_stop() { ! is_newest_attempt || echo "$by_script" > "$stop_file"; }

# What this script asked of a former attempt is over; what a person asks holds.
forget_own_request() {
  if grep -qsxF "$by_script" "$stop_file"; then rm -f "$stop_file"; fi
}

# The scheduler warns this script, never the ranks: the run saves after the step and stops.
on_warning() {
  signals=$((signals + 1))
  [ -z "$asked_to_stop" ] || return
  asked_to_stop=yes
  say "asked to stop; the run saves after this step"
  ask_to_stop
  # A run that is only starting removes the file as left over: repeat it.
  while sleep 5; do ask_to_stop; done > /dev/null 2>&1 & # keeps nobody's output open
  trap "kill $!" EXIT
}

# SLURM is ending the job; if it does so to start it again, the new attempt must not get a node that failed.
on_ending() {
  signals=$((signals + 1))
  ending=yes
  ask_to_stop
  tell_slurm_of_excluded_nodes
}

trap on_warning USR1
trap on_ending TERM

# One a line. The allocation is asked for: it may have lost nodes.
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

exclude_failed_nodes() {
  local node others
  is_newest_attempt || return
  while read -r node; do
    grep -qxF "$node" "$excluded" && continue
    others=$(sinfo -h -N -p "$SLURM_JOB_PARTITION" -o '%N %t' |
      awk -v failed="$node" '$1 != failed && $2 ~ /^(idle|mix|alloc|comp|resv|plnd)$/ { print $1 }' |
      sort -u | grep -cvxF -f "$excluded")
    if [ "$others" -ge "$min_nodes" ]; then
      say "$node failed: excluded from now on ($excluded)"
      echo "$node" >> "$excluded"
    else
      say "$node failed, but only $others others are there: SLURM gives it again once it answers"
    fi
  done < <(sed -n 's/.*Node failure on \([^ ,]*\).*/\1/p' "$complaints" 2> /dev/null | sort -u)
}

unwanted_nodes() { printf '%s%s' "$(paste -sd, "$excluded")" "${exclude:+,$exclude}"; }

# Only a job that waits in the queue can be told; this one unless others are named.
tell_slurm_of_excluded_nodes() {
  local waiting
  exclude_failed_nodes
  [ -s "$excluded" ] || return 0
  for waiting in "${@:-$job}"; do
    scontrol update JobId="$waiting" ExcNodeList="$(unwanted_nodes)" 2> /dev/null
  done
}

leave_it_to_others() {
  local links again=(sbatch)
  mapfile -t links < <(later_links)
  if [ ${#links[@]} -gt 0 ]; then
    say "$*: the next job of the chain goes on (${links[0]})"
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
  [ "$requeue" = yes ] || leave_it_to_others "$@"
  say "$*: back to the queue"
  # A job that SLURM or its owner is ending must not come back.
  [ "$(ask_slurm squeue -h -j "$job" -o %T)" = RUNNING ] || exit 75
  end_if_outlived
  ask_slurm scontrol requeue "$job" # SLURM now ends this script, and perhaps the next line: then on_ending repeats it
  tell_slurm_of_excluded_nodes
  exit 75
}

# The rest of a chain: pending jobs that depend on this one, and those that depend on them; of arrays the same task.
later_links() {
  squeue -h -r -u "$(id -u)" -t PENDING -o '%i %E' | sort -n |
    awk -v first="${job%_*}" -v task="${SLURM_ARRAY_TASK_ID:-}" '
      BEGIN { chain[first] }
      {
        split($1, id, "_")
        split($2, after, /[^0-9]+/) # such as afterany:77(unfulfilled), of arrays afterany:77_*(unfulfilled)
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

# Attempts of this job since the last checkpoint, this one included, are counted in a file: SLURM may end them at any moment.
count_lives() {
  local of attempts last_seen
  seen=$(status samples_seen 2> /dev/null) # before its first checkpoint it has none
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
  local heard
  while :; do
    heard=$signals
    wait "$1"
    code=$?
    [ "$heard" -ne "$signals" ] || break # a trap ended the wait, not the step
  done
  cat "$complaints"
}

# Each rank measures its node; those that must not join are added to the excluded ones, and the rest is asked again.
# Only rank 0 knows the verdict, so nothing may kill it for a rank that dies early. It waits two minutes for one that
# says nothing; what still hangs after the verdict must not keep the nodes.
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

# Start the ranks on the nodes named, and wait for their end: `code` is then srun's.
train() {
  local ranks=$(($# * ranks_per_node))
  export MASTER_ADDR=$1
  # Below the ports that Linux gives out by itself; another one for each attempt.
  export MASTER_PORT=$((10000 + (SLURM_JOB_ID * 16 + attempt + attempts_here) % 20000))
  : > "$complaints"
  # A step that lost a node may never end in SLURM's books, and keep its cores: the next one must not wait for them.
  # Rank 0 shows what was learnt when the others have ended: --wait leaves it the time.
  srun --overlap --nodes=$# --nodelist="$(IFS=, && echo "$*")" --ntasks=$ranks --ntasks-per-node="$ranks_per_node" \
    --export=ALL --kill-on-bad-exit=1 --wait=600 --open-mode=append --output="$logs/job_${SLURM_JOB_ID}_%N.txt" \
    "${srun_options[@]}" "${container[@]}" "${command[@]}" 2>> "$complaints" &
  await $!
}

# After a failure: until the nodes answer, or SLURM has taken those that do not.
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
  count_lives
  choose_nodes
  check_nodes
  say "$count of ${#nodes[@]} healthy nodes: ${nodes[*]:0:count}"
  before=$(status time 2> /dev/null)
  forget_own_request
  train "${nodes[@]:0:count}"
  attempts_here=$((attempts_here + 1))
  state=$(status state) # none: whatever has ended, it did not end well
  [ "$(status time 2> /dev/null)" != "$before" ] || state= # not this attempt's
  say "ended with $code, status ${state:-not written}"
  case $state in
    "done") exit 0 ;;
    stopped)
      case $(status stop_reason) in
        run.stop_after_samples) give_up 75 "stopped by run.stop_after_samples" ;;
        # If neither warning nor end of the job made this script write it, a person asked, who starts it again when it suits.
        "the file "*) [ -n "$asked_to_stop$ending" ] || give_up 75 "stopped by its owner" ;;
      esac
      if [ -n "$ending" ] || [ "$when_stopped" = end ]; then exit 75; fi
      start_again "stopped for the scheduler"
      ;;
  esac
  [ "$code" -ne 0 ] || exit 0 # there was nothing left to do
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
