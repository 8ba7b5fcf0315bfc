"""The paper's data and protocols. See README.md beside this file."""
