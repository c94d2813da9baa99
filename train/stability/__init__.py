"""What keeps a run healthy unattended: a detector of bad steps, and the policy that goes back and trains on.

    StepRecord --Detector--> alarms --Policy--> Rollback, written durably --> every start and resume applies it

`detector` is a pure function of the records of a run's steps, with `windows` and `drift` as its two kinds of statistics.
`interventions` is the file of what was decided, `policy` decides. docs/stability.md has the rules, how they were
calibrated, and what they miss.
"""
