"""What a notebook opens with, as far as it is written by `mipo-nb tables`: the place on the route, minutes, memory."""

from mipo_nb.lab import colab

ROUTE, OPTIONAL = ("00", "01", "03", "10", "11", "12"), {"02": "between 01 and 03"}
_MEASURED = "[measured](../docs/running.md#minutes-and-memory)"


def seconds_alone(manifest):
    """Seconds that the notebook takes without the steps of earlier ones; a step that it asks for twice counts once."""
    first = {step["key"]: step for step in reversed(manifest["steps"])}
    return manifest["seconds"] + sum(step["seconds"] for step in first.values() if step["found"])


def measured(notebook):
    """{"minutes", "memory"} as text: the notebook run alone, and its peak, steps of earlier notebooks included."""
    if not (manifest := notebook.stamp.get("manifest")):
        return {"minutes": "", "memory": ""}
    minutes = seconds_alone(manifest) / 60
    peak = max(manifest["peak_memory"], *(step["peak_memory"] or 0 for step in manifest["steps"]), 0)
    return {"minutes": f"{minutes:.0f}" if minutes >= 0.5 else "under 1", "memory": f"{peak / 1e9:.1f} GB"}


def header(notebook, names, address):
    """The source of a notebook's first cell: its title, claim and other words, then the strip of the route with the link to
    Colab, then what it costs and needs. `names` are those of all notebooks."""
    *words, cost = [part for part in notebook.content.cells[0].source.split("\n\n") if not _is_strip(part)]
    parts = [*words, _strip(notebook.name, names, address), _cost(notebook, cost)]
    return "\n\n".join(part for part in parts if part)


def _is_strip(part):
    return part.startswith(("*[00](", "***00**", "*[Open in Colab]"))


def _strip(name, names, address):
    """The notebooks of the route, this one in bold, or behind them where it is beside the route."""
    shown = {n[:2]: f"**{n[:2]}**" if n == name else f"[{n[:2]}]({n}.ipynb)" for n in names}
    beside = ", ".join(f"{shown[n]} is optional, {where}" for n, where in OPTIONAL.items())
    here = f"you are beside it, at {shown[name[:2]]}"
    told = [f"{' → '.join(shown[n] for n in ROUTE)}; {beside if name[:2] in (*ROUTE, *OPTIONAL) else here}."]
    if url := colab.link(name, address):
        told.append(f"[Open in Colab]({url})")
    return f"*{' '.join(told)}*"


def _cost(notebook, line):
    """The last line, with what was measured in place of what stood before the words on the network."""
    found, rest = measured(notebook), line.partition(" · network: ")[2]
    if not found["minutes"]:
        return line
    machine = "two cores" if notebook.stamp["manifest"]["dtype"] == "bfloat16" else "two cores without fast bf16"
    return f"*Minutes: {found['minutes']}, {_MEASURED} on {machine} · memory {found['memory']} · network: {rest}"
