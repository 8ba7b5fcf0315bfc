"""What a notebook starts with, and what it leaves. See README.md beside this file."""
