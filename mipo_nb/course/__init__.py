"""Checks of exercises, copies for a class. See README.md beside this file."""
