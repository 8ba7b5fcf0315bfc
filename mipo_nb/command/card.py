"""What an adapter or a merged model says about itself: a model card whose head the hub's own checker reads."""

from pathlib import Path

from mipo_nb.base.embedded import EMBEDDED
from mipo_nb.engine.checkpoints import base_name

# Licences under which weights made from a model may be passed on; of any other the card says that one has to look.
_FREE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")
_EMBEDDED = {
    "smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
}  # whose weights, under which licence
_LAST = "- Trained by MIPO"  # begins the line before the facts


def card(base, *, merged=False, weights="", facts=()):
    """The text of a README.md. `base` is a model as `models.load` takes it, `weights` the commit or hash of those that it had
    (`checkpoints.BASE`); `facts` are lines of Markdown, such as how it was trained and what was measured."""
    from huggingface_hub import ModelCardData

    name, revision, licence = origin(base)
    tags = ["mipo", "dpo", *([] if merged else ["lora"])]
    head = {"base_model": name, "license": licence, "library_name": "transformers" if merged else "peft", "tags": tags}
    data = ModelCardData(**{key: value for key, value in head.items() if value})
    what, name = "Model with a LoRA adapter merged in" if merged else "LoRA adapter", name or base_name(base)
    at = f", revision `{revision}`" if revision else f", weights `{weights[:12]}`" if weights else ""
    lines = [f"# {what}, from {name}", "", f"- Base: `{name}`{at}."]
    if base.startswith("embedded:"):
        lines.append(
            f"- Trained on the weights that `mipo_nb` calls `{base}`: those of the base, rounded to 4 bits and back."
        )
    lines.append(f"- Licence of the base: {_advice(licence)}")
    lines.append(f"{_LAST} (arXiv 2603.19294): pairs of the base's own responses, without labels or a judge.")
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join([*lines, *facts]) + "\n"


def facts_of(file):
    """The `facts` of a card that was written by `card`, from its file; none where there is no such file or line."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    begin = next((k for k, line in enumerate(lines) if line.startswith(_LAST)), len(lines))
    return [line for line in lines[begin + 1 :] if line.startswith("- ")]


def _advice(licence):
    if licence in _FREE:
        return f"{licence}."
    known = f"{licence}; it" if licence else "not found beside its weights; it"
    return f"{known} may forbid passing weights on, merged ones above all. Read it before you do."


def origin(base):
    """(id on the hub or None, revision or None, licence or None) of a model's name or folder."""
    if base.startswith("embedded:"):
        key = base.partition(":")[2]
        return (*_EMBEDDED[key][:1], None, _EMBEDDED[key][1]) if key in EMBEDDED and key in _EMBEDDED else (None,) * 3
    folder = Path(base).expanduser()
    name, _, revision = base.partition("@")
    if folder.is_dir():
        return None, None, _licence_in(folder / "README.md")
    return name, revision or None, _licence_on_the_hub(name, revision or None)


def _licence_in(file):
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        return (metadata_load(file) or {}).get("license")
    except (OSError, ValueError, YAMLError):
        return None


def _licence_on_the_hub(name, revision):
    from huggingface_hub import hf_hub_download

    try:
        return _licence_in(hf_hub_download(name, "README.md", revision=revision))
    except Exception:  # no network, no card, no such name: the card then says that it was not found
        return None
