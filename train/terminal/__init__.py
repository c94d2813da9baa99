r"""What people see of a run while it trains: sentences as records of Python's logging, log.txt, and a live display.

Tracker calls --tracker.py--> records --records.py--> log.txt and the terminal, or an embedding program's handlers
                         \--> readings.py --layout.py--> screen.py, on a terminal
"""
