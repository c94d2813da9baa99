"""The checks of a configuration, by what they look at; configs/validate.py runs them all."""
