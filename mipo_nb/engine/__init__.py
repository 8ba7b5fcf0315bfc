"""The same numbers, faster. See README.md beside this file."""

import logging

# It announces an optional package when it is imported, which trl and peft do long before a model is loaded.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
