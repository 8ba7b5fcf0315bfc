"""The command `mipo-nb`. See README.md beside this file."""
