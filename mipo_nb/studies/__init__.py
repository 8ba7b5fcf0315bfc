"""Each file serves a notebook or two. See README.md beside this file."""
