"""What everything stands on: errors, files, progress, hardware, embedded models. See README.md beside this file."""
