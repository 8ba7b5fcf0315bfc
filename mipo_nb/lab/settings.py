"""Profiles, and the settings of one run.

A profile is a set of numbers in `profiles/NAME.toml`: a table `defaults` and a table per notebook. The code path is
the same for all profiles; any number can be overridden by name.
"""

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mipo_nb.base.errors import UserError, did_you_mean, require_known
from mipo_nb.base.files import project_root
from mipo_nb.base.hardware import hardware

_GPU_BYTES = 8 * 1024**3 * 0.95  # cards sold as "8 GB" report a little less
# Numbers that mean something at zero: greedy, no cut, all weights, no warm-up, a rate that ends at nothing, no penalty.
_MAY_BE_ZERO = (
    "temperature",
    "choice_temperature",
    "top_k",
    "lora_rank",
    "warmup",
    "final_rate",
    "reward_beta",
    "evaluate_every",
    "patience",
    "gpus_per_training",
)
# Probabilities and shares, and more than the width of the layers of any model that one GPU holds.
_AT_MOST = {"top_p": 1, "warmup": 1, "final_rate": 1, "lora_rank": 4096}
# What a parameter in capitals does not name: what a run takes by other means, and what is no number of an experiment.
_NOT_IN_CAPITALS = ("model", "data", "needs_gb", "time_out")
# What DATA takes by name: a file that happens to be called so is not meant (`paper.personal` reads all but the first).
DATA_NAMES = ("own", "prism", "community_alignment", "multifaceted_bench")


def profile_names(notebook=None):
    """The names of the profiles that come with the package: all, or those that a notebook can be run with."""
    folder = resources.files("mipo_nb") / "profiles"
    names = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    return [n for n in names if notebook is None or notebook in read_toml(profile_file(n)).get("notebooks", [notebook])]


@dataclass(frozen=True)
class Settings:
    """Everything that sizes a run. `numbers` holds the profile's values for this notebook, overrides applied.

    `model`, `adapter` and `data` are absolute paths where they name what is there, see `located`.
    """

    profile: str
    notebook: str
    model: str
    seed: int
    device: str
    dtype: str
    numbers: dict
    adapter: str | None = None

    @property
    def weights(self):
        """How `models.load` is to hold the model."""
        names = ("device", "dtype", "four_bit", "template_options")
        return {name: getattr(self, name) for name in names}

    def __getattr__(self, name):
        try:
            return self.__dict__["numbers"][name]
        except KeyError:
            numbers = self.__dict__.get("numbers", {})
            raise AttributeError(f"profile has no number '{name}'; {did_you_mean(name, numbers)}") from None


def profile_file(profile):
    """The file of a profile: one of the package's by its name, a user's own by a path that ends in .toml. Raises
    `UserError` where there is none."""
    file = Path(profile).expanduser()
    if file.suffix == ".toml":
        if not file.is_file():
            raise UserError(f"There is no profile file '{profile}'; give its whole path.")
        return file.resolve()
    if profile not in profile_names():
        raise UserError(f"Unknown profile '{profile}'; {did_you_mean(profile, [*profile_names(), 'auto'])}")
    return resources.files("mipo_nb") / "profiles" / f"{profile}.toml"


def profile_numbers(profile, notebook):
    """The numbers of one profile for one notebook: its defaults, overridden by the notebook's own values.

    A file without `defaults`, and any of a user's own, need only hold what differs from the laptop profile. A profile
    that lists `notebooks` serves only these; `notebook=None` gives any profile's defaults. Raises `UserError` for another notebook, and for a file that is
    not TOML or has a table, a name or a value that the laptop profile could not have.
    """
    file = profile_file(profile)
    tables = read_toml(file)
    served = tables.get("notebooks", [notebook])
    if notebook is not None and notebook not in served:
        numbers = ", ".join(name.partition("_")[0] for name in served)
        raise UserError(f"The profile '{profile}' is for notebooks {numbers}, not for {notebook}; use gpu or laptop.")
    numbers = {**tables.get("defaults", {}), **tables.get(notebook, {})}
    laptop = read_toml(profile_file("laptop"))
    if Path(profile).suffix == ".toml":
        _check(file, tables, laptop)
    elif "defaults" in tables:
        return numbers
    return {**laptop["defaults"], **laptop.get(notebook, {}), **numbers}


def _check(file, tables, laptop):
    """Raise `UserError`, with file and line, where a user's own profile has what the laptop profile could not have."""
    for heading, table in tables.items():
        where = f"{file.name}, {_line(file, heading)}"
        if heading not in laptop or not isinstance(table, dict):
            raise UserError(f"{where}: no table '{heading}'; {did_you_mean(heading, laptop)}")
        allowed = {**laptop["defaults"], **laptop[heading]}
        for name, value in table.items():
            where = f"{file.name}, {_line(file, heading, name)}"
            if name not in allowed:
                raise UserError(f"{where}: unknown number '{name}'; {did_you_mean(name, allowed)}")
            try:
                _checked(name, value, allowed[name])
            except UserError as e:
                raise UserError(f"{where}: {e}") from None


def read_toml(file, kind="profile"):
    """The tables of a TOML file. Raises `UserError`, in which it is a `kind` of file, where it cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"The {kind} {file.name} cannot be read: {e}.") from None


def _line(file, heading, name=None):
    """ "line N" of the table `heading`, or of a `name` in it, for an error message."""
    inside = name is None
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        word = line.split("=")[0].strip().strip("[]\"' ")
        if name is not None and line.lstrip().startswith("["):
            inside = word == heading
        elif inside and word == (heading if name is None else name):
            return f"line {number}"
    return f"table '{heading}'"


def resolve(profile, notebook, *, model=None, adapter=None, seed=0, device=None, **overrides):
    """Settings for a notebook.

    `profile="auto"` takes `gpu` where CUDA has 8 GB or more, else `laptop`. `overrides` of None are ignored; the others
    must name a number of the profile and keep its type. `model`, `adapter` (folders, or names on the hub) and `data` (a
    file, or a name) are `located`. Raises `UserError` for an unknown profile or number, a value of the wrong type or
    sign, or an absent device.
    """
    machine = hardware()
    if profile == "auto":
        profile = "gpu" if machine.cuda_memory >= _GPU_BYTES else "laptop"
    stem = Path(profile).stem
    if profile != stem and stem in profile_names():  # its runs would lie among those of the project's own
        raise UserError(f"The profile file '{profile}' is called like one of the project's own; rename it.")
    numbers = profile_numbers(profile, notebook)
    for name, value in ((name, value) for name, value in overrides.items() if value is not None):
        require_known("parameter", name, numbers)
        numbers[name] = _checked(name, value, numbers[name])
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise UserError(f"SEED must be a whole number from 0 to {2**31 - 1}, not {seed!r}.")
    device = device or machine.device
    if device == "cuda" and not machine.cuda:
        raise UserError("CUDA was asked for but no CUDA device is visible; use device='cpu' or profile 'laptop'.")
    if device not in ("cpu", "cuda"):
        raise UserError(f"Unknown device '{device}'; use 'cpu' or 'cuda'.")
    default_model = numbers.pop("model", None)
    model = located("MODEL", model or default_model, os.path.isdir)
    adapter = located("ADAPTER", adapter or None, os.path.isdir)
    if numbers["rules_file"]:
        numbers["rules_file"] = located("RULES_FILE", numbers["rules_file"], os.path.isfile)
    if numbers.get("data") not in DATA_NAMES:
        numbers["data"] = located("DATA", numbers["data"], os.path.isfile)
    return Settings(Path(profile).stem, notebook, model, seed, device, machine.dtype, numbers, adapter)


def in_capitals(profile, notebook):
    """{"N_PAIRS": "n_pairs", ...}: the parameters by which the numbers of a profile for a notebook can be given."""
    numbers = profile_numbers(resolve(profile, notebook).profile if profile == "auto" else profile, notebook)
    return {name.upper(): name for name in numbers if name not in _NOT_IN_CAPITALS}


def located(parameter, name, is_there):
    """The absolute path, as text, of what a relative `name` means; the name as it was where nothing `is_there`.

    Taken from the project's root, else from the working folder: JupyterLab, VS Code and headless runs work in different
    folders, and a name means the same in each. None stays None. Raises `UserError` for a name that is not text.
    """
    if name is None:
        return None
    if not isinstance(name, (str, Path)):
        raise UserError(f"{parameter} must be a name or a path as text, not {name!r}.")
    for folder in (project_root(), Path.cwd()):
        path = os.path.abspath(folder / os.path.expanduser(name))
        if is_there(path):
            return path
    return str(name)


def _checked(name, value, default):
    """`value` if it has the type and sign of the profile's own value for this number."""
    kind, zero = type(default), not default or name in _MAY_BE_ZERO
    if kind is float and type(value) is int:
        value = float(value)
    if kind is not type(value):
        raise UserError(f"{name} must be of type {kind.__name__} (like {default!r}), not {value!r}.")
    if kind in (int, float) and not (0 < value < float("inf") or (zero and value == 0)):
        raise UserError(
            f"{name} must be a finite number {'of 0 or more' if zero else 'greater than 0'}, not {value!r}."
        )
    if kind is dict and not all(isinstance(key, str) for key in value):
        raise UserError(f"{name} must have text as its keys, not {value!r}.")
    if name in _AT_MOST and value > _AT_MOST[name]:
        raise UserError(f"{name} cannot be {value!r}; use a number up to {_AT_MOST[name]}.")
    return value
