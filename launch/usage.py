"""The `--help` text of each launch command, at most 80 columns wide, the default width of a terminal."""

from configs.run_paths import STATUS

_OVERRIDES = """\
overrides: key=value and group=choice as in python -m train, and --config-dir
           DIR for groups of your own. python -m train --help lists them;
           python -m train --help cluster those of the cluster."""

HELP = {
    "estimate": """\
python -m launch estimate [overrides] [--search]

Sizes, memory, time and cost of a run, calculated: nothing is started.

  --search   the best layout of the cluster that fits its GPUs; needs
             cluster.gpu""",
    "torchrun": """\
python -m launch torchrun [overrides] [--submit]

The command that starts a run; on several nodes the same line is typed on each
of them.

  --submit   start it here, on one node""",
    "slurm": """\
python -m launch slurm [overrides] [--submit] [--chain N] [--print]
                       [--sweep key=value,value ... [--table]]

Writes the sbatch script of a run into its run folder.

  --submit          send it
  --print           print the script, too
  --chain N         send N jobs, each of which continues the one before
  --sweep key=a,b   a run for each combination, as one job array; may be
                    repeated
  --table           the results of the sweep's runs

A sweep on this machine: python -m launch sweep --help""",
    "sweep": """\
python -m launch sweep [overrides] --sweep key=value,value ...
                       [--local [--jobs N] | --table]

The same run with each combination of some values, a run folder for each.

  --sweep key=a,b   the values of a key; may be repeated
  --local           run them on this machine, one after the other; those that
                    are finished are passed over, the others go on where they
                    stopped. Ctrl-C saves and stops, a second one stops at once
  --jobs N          with --local: N of them at a time
  --table           their results

Without --local and --table it lists the runs.""",
    "status": f"""\
python -m launch status [RUN | FOLDER] [--field NAME]

The state of a run, its samples seen, and when that was written. Without RUN a
table of the runs in the folder runs, or in FOLDER. The state is running, done,
stopped, failed, or interrupted (its process was killed).

  --field NAME   for scripts: the value of one field alone, such as state or
                 samples_seen, as {STATUS} has it; stop_reason says why a
                 stopped run stopped, slow_hosts names hosts whose ranks its
                 last process has found slow, with blanks between them""",
    "layout": f"""\
python -m launch layout [overrides] [--nodes N] [--run FOLDER]

How many ranks to start on the nodes that are left, as name=value lines for job
scripts.

  --nodes N      nodes that are available; default: cluster.nodes
  --run FOLDER   the run whose {STATUS} says how far it has come; default:
                 the configuration's""",
    "pdsh": """\
python -m launch pdsh [overrides] cluster.hostfile=FILE

The line that starts a run on the hosts listed in a file, one per line: HOST or
HOST slots=N.""",
    "kubernetes": """\
python -m launch kubernetes [overrides] cluster.image=IMAGE
                            cluster.volume=CLAIM:PATH

The manifest of a run, a PyTorchJob of the Kubeflow training operator, for
kubectl apply -f -. Files and folders that the overrides name, --config-dir
too, must be on the volume.""",
    "collect": """\
python -m launch collect FOLDER [overrides] [--with-torch]

Everything that a cluster without internet access needs: wheels, and the files
that the configuration names. On the cluster: bash FOLDER/install.sh

  --with-torch   PyTorch too""",
}

_WITHOUT_OVERRIDES = ("status",)


def usage(command: str) -> str | None:
    """The help text of a command; None for a command that prints its own."""
    text = HELP.get(command)
    if text is None or command in _WITHOUT_OVERRIDES:
        return None if text is None else f"{text}\n"
    return f"{text}\n\n{_OVERRIDES}\n"
