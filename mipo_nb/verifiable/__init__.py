"""Problems with a right answer. See README.md beside this file."""
