"""`mipo-nb train`: from a file of users to an adapter with a card and a page, without a notebook."""

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mipo_nb import generation, mipo, models, pairs, preferences, prompts, sources, training
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.files import content_hash, digest, write_atomically
from mipo_nb.base.rows import SPLITS
from mipo_nb.command import state
from mipo_nb.command.export import export
from mipo_nb.command.train_page import PRICES, WISHES, page
from mipo_nb.engine.arguments import reports
from mipo_nb.lab import ledger, notebooks, runs, settings
from mipo_nb.statistics import mean, proportion
from mipo_nb.studies import arms

_BY_OPTION = {
    "MODEL": "--model", "SEED": "--seed", "OUTPUT_DIR": "--output-dir", "PROFILE": "--profile", "DATA": "the first word after train",
}  # fmt: skip
_NAME = "train"  # of its table in a profile, and of its folder


def train(data, *, profile, output_dir, seed=0, model=None, numbers=()):
    """Pairs, training, what it did on held-out pairs and to test users, the adapter with its card, one page. Returns lines
    to show. Steps are kept: a killed call goes on where it was. `numbers` are those of the profile, their names in capitals.

    Raises `UserError` as `runs.start` and `mipo.mipo` do, and for a parameter that is no number of the profile.
    """
    known, given = settings.in_capitals(profile, _NAME), dict(numbers)
    for name in given:
        if name in _BY_OPTION:
            raise UserError(f"{name} is no number of the profile; give it by {_BY_OPTION[name]}.")
        require_known("parameter", name, known)
    if "SYSTEM" in given and "WITH_CONTEXT" not in given and given.get("NEGATIVE") != "missing_context":
        raise UserError(
            "SYSTEM is put where no user is known, and here one is in every row; give WITH_CONTEXT too, with your words and {context}."
        )
    asked = {"model": model, "seed": seed, "data": data, **{known[name]: value for name, value in given.items()}}
    _require_all(settings.resolve(profile, _NAME, **asked))
    with state.alone(state.profile_folder(output_dir, profile)):
        run = runs.start(_NAME, profile, output_dir=output_dir, **asked)
        return _carried_out(run, [f"{name}={value}" for name, value in given.items()], profile, output_dir)


def _require_all(s):
    """Raise `UserError` before anything is written, where rules, rows or numbers are such that it could not be carried out."""
    if not s.lora_rank:
        raise UserError("This command trains an adapter; set lora_rank above 0, or train all weights by notebook 30.")
    training.Recipe.of(s)
    reports(s.report_to)
    generation.Sampling.of(s)
    require_known("negative", s.negative, pairs.NEGATIVES)
    prompts.Frame(s.system, s.with_context)
    preferences.add_kinds(s.rules_file)
    rows = {
        split: sources.personal_prompts(split, n=_numbers_of_rows(s)[split], data=s.data, seed=s.seed)
        for split in SPLITS
    }
    for split in ("train", "dev"):
        people = len(set(rows[split]["user_id"]))
        if people < 2 and s.negative not in ("random_prompt", "missing_context"):
            told = f"'{s.negative}' takes something of another person, and of yours {people} is in '{split}'"
            raise UserError(f"{told}; add people, six or more, or say in a column 'split' who belongs to which.")
        pairs.negative_conversations(rows[split], s.negative, seed=s.seed)
    if (found := len(rows["train"])) < (least := training.Recipe.of(s).pairs_per_step):
        told = f"{found} training rows are fewer than the {least} of one step"
        raise UserError(f"{told}; raise N_PAIRS, add rows or lower BATCH_SIZE.")
    models.load_config(s.model)
    models.load_tokenizer(s.model, s.template_options)


def _content(data):
    """What identifies the rows that were given: a file by what is in it, so that a corrected one has an adapter of its own."""
    return content_hash([Path(data)]) if Path(data).is_file() else data


def _numbers_of_rows(s):
    return {"train": s.n_pairs, "dev": s.n_held_out, "test": s.n_measured}


def _carried_out(run, given, profile, output_dir):
    s = run.settings
    result, held_out = _trained(run)
    untrained, tokenizer = models.load(s.model, **s.weights)
    policy = models.with_adapter(untrained, result["adapter"], s.model)
    pair = {"untrained": untrained, "trained": policy}
    margin = _margins(pair, tokenizer, held_out, run)
    views, said = _measured(pair, tokenizer, run)
    rows, changes, held_out = _rows(result, margin, views, run)
    folder = (
        run.folder / "adapters" / f"{Path(s.data).stem}-{digest([_content(s.data), s.model, s.seed, s.numbers])[:6]}"
    )
    facts = [
        f"- Data: {Path(s.data).name}, {len(result['pairs'])} pairs of training users.",
        *_recipe(s),
        *map("- {what}: {found}.".format_map, rows),
    ]
    shutil.rmtree(folder / "new", ignore_errors=True)  # of a call that was killed just here
    export(result["adapter"], "adapter", folder / "new", model=s.model, facts=facts)
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    (folder / "new").rename(folder / "adapter")
    write_atomically(folder / "report.html", page(rows, changes, held_out, said, repr(run)))
    return [
        *(f"{row['what']}: {row['found']}" for row in rows),
        "",
        f"Adapter: {folder / 'adapter'}",
        f"Page: {folder / 'report.html'}",
        *_next(folder, s, given, profile, output_dir),
    ]


def _recipe(s):
    """Lines for the card: what whoever serves the adapter has to give, and how it was trained."""
    options = f" Options of its chat template: `{s.template_options}`." if s.template_options else ""
    return [
        f"- What it was told of a user: `{s.with_context}`. Without a user: `{s.system}`.{options}",
        f"- Rejected side: {s.negative}. Learning rate {s.learning_rate:g}, β {s.beta:g}, {s.epochs:g} passes, LoRA of rank "
        f"{s.lora_rank} on {s.lora_target}.",
    ]


def _trained(run):
    """(what `mipo.mipo` returns, pairs of development users that training did not learn from)"""
    s = run.settings
    rows, watched = (
        sources.personal_prompts(split, n=_numbers_of_rows(s)[split], data=s.data, seed=s.seed)
        for split in ("train", "dev")
    )
    how = {
        "negative": s.negative,
        "sampling": generation.Sampling.of(s),
        "report_to": s.report_to,
        "scoring_batch": s.scoring_batch,
        "step": run.step,
    }
    result = mipo.mipo(s.model, rows, training.Recipe.of(s), held_out=watched, **how)
    return result, result["held_out_pairs"]


def _margins(pair, tokenizer, held_out, run):
    """Nats [pairs] by which training raised the chosen side of held-out pairs above the rejected one."""
    before, after = (
        run.step(
            "held-out log-probs",
            training.reference_log_probabilities,
            m,
            tokenizer,
            held_out,
            batch_size=run.settings.scoring_batch,
        )
        for m in pair.values()
    )
    return (after - before) @ np.array([1.0, -1.0])


def _measured(pair, tokenizer, run):
    """({name: views of `arms.measured`}, [(row, {name: what it said})] of three test users)"""
    s, views, texts = run.settings, {}, {}
    rows, _ = arms.people("test", s)
    for name, model in pair.items():
        views[name] = arms.measured(model, tokenizer, "test", s, draws=range(s.draws), step=run.step)
        texts[name] = arms.answers(model, tokenizer, rows, s, draws=[0], step=run.step)[0]["text"]
    users = list(rows["user_id"])
    shown = [users.index(user) for user in dict.fromkeys(users)][:3]
    return views, [(rows[i], {name: said[i] for name, said in texts.items()}) for i in shown]


def _rows(result, margin, views, run):
    """([{"what", "found"}]: what a reader of the page is told, recorded in the run too; {view: its change}; the share of
    held-out pairs whose chosen side rose more)"""
    users, base, after = list(result["held_out_pairs"]["user_id"]), views["untrained"], views["trained"]
    learned, why = result["pairs"], {"rows", "pairs", "cut"}  # the counts that say nothing of what was left out
    left_out = ", ".join(f"{n} {name}" for name, n in result["counts"].items() if name not in why and n)
    rows = [
        {"what": "trained on", "found": f"{len(learned)} pairs, of prompts left out: {left_out or 'none'}"},
        {"what": "cost", "found": f"{sum(step['seconds'] for step in run.steps) / 60:.1f} minutes"},
        {"what": "users measured", "found": f"{len(base['users'])}, of whom training saw none"},
    ]

    def tell(what, estimate, unit, form, level=""):
        run.record(what, estimate, unit=unit)
        rows.append({"what": f"{what}{level}", "found": f"{estimate:{form}} {unit}"})

    held_out = proportion(margin > 0, users) * 100
    chose = ", of the pairs that chose this adapter" if run.settings.patience else ""
    tell("held-out pairs whose chosen side rose more", held_out, "%", ".1f", chose)
    tell("held-out margin", mean(margin, users), "nats", ".1f", chose)
    asked = arms.people("test", run.settings)[0]["preferences"]
    wished = any(map(preferences.checkable, asked))
    if not wished:
        rows.append({"what": "wishes", "found": "none that a rule can check; see docs/own_wishes.md"})
    elif not any(after["kept"]) and len({tuple(sorted(p["kind"] or "" for p in some)) for some in asked}) == 1:
        rows.append({"what": "wishes", "found": "all the same, so what is for the user cannot be told from a style"})
    changes = ledger.changes(base, [after], (*(WISHES if wished else ()), *PRICES))
    levels = ledger.levels(base, changes)
    changes = {view: _possible(view, change, levels[view]) for view, change in changes.items()}
    for view, change in changes.items():
        tell(view, change, "words" if view == "words" else "points", "+.1f", f", untrained {levels[view]:.1f}")
    return rows, changes, held_out


def _possible(view, change, level):
    """A change whose interval ends where a share, or a length, does."""
    most = np.inf if view == "words" else 100
    least = -100 if view == "for the user" else 0
    return replace(change, low=max(change.low, least - level), high=min(change.high, most - level))


def _next(folder, s, given, profile, output_dir):
    """Lines to show: what one would run now, with those numbers that this call had and a notebook reads."""
    merge = ["export", folder / "adapter", "--to", "merged", "--output", folder / "merged", "--model", s.model]
    how = ["--profile", profile, "--output-dir", output_dir]
    for name, value in (("DATA", s.data), ("MODEL", s.model), ("SEED", s.seed)):
        how += ["-p", f"{name}={value}"]
    commands = [merge]
    for book in notebooks.selected(["15", "12"]):
        taken = [text for text in given if book.takes(text.partition("=")[0], profile)]
        commands.append(["run", book.name[:2], *how, *(word for text in taken for word in ("-p", text))])
    program = sys.argv[0] if Path(sys.argv[0]).name == "mipo-nb" and not shutil.which("mipo-nb") else "mipo-nb"
    return ["Next, one of:", *(f"  {shlex.join([program, *map(str, words)])}" for words in commands)]
