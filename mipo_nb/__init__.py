"""mipo_nb: the thin package under a collection of notebooks on Mutual Information Preference Optimization.

MIPO (arXiv 2603.19294) trains a language model on pairs it makes itself: a response to the real prompt and user
context against a response to another one. `import mipo_nb` is cheap: a module is loaded when it is first used.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "information objectives statistics answers settings provenance runs prompts preferences sources originals published stories "
    "problems embedded models packing decoding generation scoring pairs steering checkpoints costs training rounds distributed contrastive dose rewards grpo judges evaluation diversity creative dialogues blind reasoning decomposition published_reasoning win_rates plots checking checks baseline_checks reproduction_checks study_checks "
    "state runner report claims ledger routes benchmarks classroom doctor dry_run cli"
).split()
__all__ = ["__version__", *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
