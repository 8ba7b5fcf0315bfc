"""mipo_nb: the thin package under a collection of notebooks on Mutual Information Preference Optimization.

MIPO (arXiv 2603.19294) trains a language model on pairs it makes itself: a response to the real prompt and user
context against a response to another one. `mipo_nb.mipo` is the method on one page: read it first.

`import mipo_nb` is cheap: a module is loaded when it is first used, by its name in `MODULES`.
"""

import importlib

__version__ = "0.1.0"

# The face of the package: the name by which a notebook imports a module, and where it lies. Some names are older than
# the files that they stand for; each goes when the notebooks that use it are next run.
MODULES = {
    # the method
    "mipo": "mipo", "prompts": "prompts", "sources": "sources", "models": "models", "generation": "generation",
    "pairs": "pairs", "scoring": "scoring", "objectives": "objectives", "training": "training",
    "information": "information", "preferences": "preferences", "evaluation": "evaluation", "statistics": "statistics",
    # base: what everything stands on
    "errors": "base.errors", "files": "base.files", "jsonl": "base.jsonl", "rows": "base.rows", "progress": "base.progress", "hardware": "base.hardware",
    "embedded": "base.embedded", "splits": "base.splits", "own_data": "base.own_data", "frame": "base.frame", "crossed": "base.crossed",
    "resampling": "base.resampling",
    # wishes: whether a response does what a user wished
    "sentences": "wishes.sentences", "refusals": "wishes.refusals", "recital": "wishes.recital",
    "languages": "wishes.languages", "grammar": "wishes.grammar", "response": "wishes.response", "kind": "wishes.kind",
    "forms": "wishes.forms", "endings": "wishes.endings", "lists": "wishes.lists", "address": "wishes.address",
    "phrases": "wishes.phrases", "figures": "wishes.figures", "mentions": "wishes.mentions", "topics": "wishes.topics",
    "own_kinds": "wishes.own_kinds",
    # engine: the same numbers, faster
    "attention": "engine.attention", "packing": "engine.packing", "linear": "engine.linear", "head": "engine.head",
    "routes": "engine.routes", "own_forward": "engine.own_forward", "plain_decoding": "engine.plain_decoding",
    "decoding": "engine.decoding", "templates": "engine.templates", "trainers": "engine.trainers",
    "arguments": "engine.arguments", "checkpoints": "engine.checkpoints", "callbacks": "engine.callbacks", "early_stopping": "engine.early_stopping", "self_distillation": "engine.self_distillation", "server": "engine.server", "local_server": "engine.local_server", "process": "engine.process",
    # lab: what a notebook starts with, and what it leaves
    "settings": "lab.settings", "runs": "lab.runs", "steps": "lab.steps", "store": "lab.store", "grids": "lab.grids",
    "workers": "lab.workers", "names": "lab.names", "provenance": "lab.provenance",
    "notebooks": "lab.notebooks", "plots": "lab.plots", "costs": "lab.costs", "claims": "lab.claims",
    "tables": "lab.tables", "ledger": "lab.ledger", "badges": "lab.badges",
    "forest": "lab.forest", "pages": "lab.pages", "headers": "lab.headers", "colab": "lab.colab",
    # verifiable: problems with a right answer
    "answers": "verifiable.answers", "stories": "verifiable.stories", "problems": "verifiable.problems",
    "reasoning": "verifiable.grading", "decomposition": "verifiable.decomposition", "corruptions": "verifiable.corruptions", "rewards": "verifiable.rewards",
    "grpo": "verifiable.grpo",
    # paper: the paper's data and protocols
    "published": "paper.personal", "data_files": "paper.data_files", "published_reasoning": "paper.reasoning",
    "diversity": "paper.diversity", "judges": "paper.judges", "replies": "paper.replies", "win_rates": "paper.win_rates",
    "several_gpus": "paper.several_gpus", "trainings": "paper.trainings",
    # studies: each serves a notebook or two
    "steering": "studies.steering", "contrastive": "studies.contrastive", "arms": "studies.arms", "distillation": "studies.distillation", "sweeps": "studies.sweeps", "recognition": "studies.recognition", "swaps": "studies.swaps", "widening": "studies.widening", "without_labels": "studies.without_labels", "rewarded": "studies.rewarded",
    "rounds": "studies.rounds", "walks": "studies.walks", "creative": "studies.creative",
    "blind": "studies.blind",
    # course: exercises, copies for a class
    "checking": "course.checking", "checks": "course.checks", "baseline_checks": "course.baseline_checks",
    "reproduction_checks": "course.reproduction_checks", "study_checks": "course.study_checks", "practice_checks": "course.practice_checks",
    "classroom": "course.classroom", "slides": "course.slides",
    # command: mipo-nb
    "cli": "command.cli", "runner": "command.runner", "batch": "command.batch", "state": "command.state", "report": "command.report",
    "doctor": "command.doctor", "dry_run": "command.dry_run", "plain_route": "command.plain_route",
    "benchmarks": "command.benchmarks", "gpu_check": "command.gpu_check", "gpu_measures": "command.gpu_measures",
    "gpu_page": "command.gpu_page", "samplers": "command.samplers", "random_models": "command.random_models",
    "export": "command.export", "card": "command.card", "demo": "command.demo",
    "train_adapter": "command.train_adapter", "train_page": "command.train_page", "upload": "command.upload", "parameters": "command.parameters",
}  # fmt: skip
__all__ = ["__version__", *MODULES]


def __getattr__(name):
    if name in MODULES:
        return importlib.import_module(f"{__name__}.{MODULES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
