"""The checks of a configuration, by subject; configs/validate.py runs them all."""
