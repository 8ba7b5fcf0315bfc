"""Whether a response does what a user wished. See README.md beside this file."""
